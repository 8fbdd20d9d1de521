"""A deployment on Modal: to ask it, look at it, scale it, stop it.

A handle holds names and keys and no connection: it can be kept, sent to another process and used
after the app was deployed anew. Each method asks Modal when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from typing_extensions import Unpack

from internvl_modal._utils.lazy_module import LazyModule
from internvl_modal._utils.notebook import card, table
from internvl_modal._utils.short_errors import short_errors
from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.sync import Client
from internvl_modal.deployment import billing
from internvl_modal.deployment.billing import DeploymentCost
from internvl_modal.deployment.design import make_spec
from internvl_modal.deployment.keys import container_variables
from internvl_modal.deployment.managed import ManagedApp
from internvl_modal.deployment.modal_api import outside_loop
from internvl_modal.deployment.planned import planned
from internvl_modal.deployment.remote_batch import Mapped, map_pictures
from internvl_modal.deployment.served_app import ServedApp
from internvl_modal.deployment.spec import DeploymentSpec
from internvl_modal.errors import ConfigError, DeployError, MissingExtraError
from internvl_modal.models.catalogue import find_model
from internvl_modal.planning.plan import Plan
from internvl_modal.schema.options import Options, with_options

if TYPE_CHECKING:
    import openai
else:
    openai = LazyModule("openai")


@short_errors
class Deployment(ManagedApp):
    """An app on Modal that serves a model, or with ``dry_run`` what it would be.

    Methods that ask Modal raise DeployError.

    Made by ``deploy`` and ``connect``, never by hand. With ``dry_run`` only ``spec``, ``plan``,
    ``cost`` and the names work; the rest raises DeployError.

    >>> found = connect("internvl2_5-8b")  # doctest: +SKIP
    >>> with found.client() as client:  # doctest: +SKIP
    ...     print(client.describe("photo.jpg"))
    """

    @classmethod
    def of(
        cls,
        spec: DeploymentSpec,
        api_key: SecretStr | None,
        proxy: tuple[SecretStr, SecretStr] | None,
        urls: Mapping[str, str] | None = None,
    ) -> Deployment:
        """The deployment that ``spec`` makes, at ``urls`` where it is made."""
        made = cls(spec.options, api_key, proxy, urls)
        # Where ``cached_property`` keeps its value; the class is frozen, so there is no other way
        # in.
        made.__dict__["spec"] = spec
        return made

    def __repr__(self) -> str:
        dry = ", dry run" if self.dry_run else ""
        return f"<Deployment {self.name!r} of {self.model} on {self.options.gpu}{dry}>"

    def to_dict(self) -> dict[str, object]:
        """What it is and where, without its key, ready for JSON."""
        return {
            "name": self.name,
            "environment": self.options.environment,
            "dry_run": self.dry_run,
            "urls": dict(self.found_urls or {}),
            "spec": self.spec.to_dict(),
        }

    def _repr_html_(self) -> str:
        facts = [self.model, f"{self.spec.cost_per_hour:.2f} USD an hour while it runs"]
        facts += ["dry run: nothing was deployed"] if self.dry_run else []
        details = {"where": table(self.found_urls)} if self.found_urls else {}
        details["what it is made of"] = f"<pre>{escape(str(self.spec))}</pre>"
        return card(self.name, facts, details=details)

    @cached_property
    def spec(self) -> DeploymentSpec:
        """All of it, as plain data; asks the Hub for a model that is not in the catalog."""
        return make_spec(self.options, planned(self.options, "catalogue"))

    @property
    def model(self) -> str:
        """The name the model is served by."""
        return self.options.model.rpartition("/")[2].lower()

    @property
    def plan(self) -> Plan:
        """Memory, capacity and cost of what was deployed."""
        return self.spec.plan

    @property
    def secrets(self) -> dict[str, str]:
        """The variables that let a container ask this deployment."""
        return container_variables(self._key(), self.proxy)

    def cost(
        self, *, since: datetime | timedelta | None = None, pictures: int | None = None
    ) -> DeploymentCost:
        """USD an hour, an idle window, a start, a thousand pictures, as the plan has them.

        With ``since``, a time or how long ago, ``.billed`` is what Modal has billed from then on,
        in whole hours, and what 1,000 pictures really cost: of the ``pictures`` that you know of,
        else of the requests that Modal counted. Raises DeployError where Modal tells no bills.
        """
        bill = None
        if since is not None:
            self._require_real()
            where = self.name, self.options.environment
            bill = outside_loop(lambda: billing.billed(*where, since, pictures))
        return DeploymentCost.beside(self.plan.cost, bill)

    def backend(self) -> ServedApp:
        """The backend behind this deployment's clients."""
        url = self.urls["openai"]
        if self.options.proxy_auth and self.proxy is None:
            raise ConfigError(
                f"{self.name} is behind Modal's proxy auth",
                hint="set INTERNVL_MODAL_MODAL_KEY and INTERNVL_MODAL_MODAL_SECRET",
            )
        return ServedApp(
            self.name,
            environment=self.options.environment,
            model=self.model,
            engine=self._engine,
            api_key=self._key(),
            proxy=self.proxy,
            plan=self._known_plan,
            timeout=self._patience,
            url=url,
            revision=self.options.revision,
        )

    def client(self, **arguments: Any) -> Client:
        """A client of this deployment; ``arguments`` are those of ``Client``.

        Its timeout leaves time for a cold start unless one is given.
        """
        return Client(self.backend(), **arguments)

    def async_client(self, **arguments: Any) -> AsyncClient:
        """An async client of this deployment; ``arguments`` are those of ``AsyncClient``."""
        return AsyncClient(self.backend(), **arguments)

    def openai(self, **arguments: Any) -> openai.OpenAI:
        """The ``openai`` package's client for this deployment.

        Sends Modal's proxy headers where there are any. Raises MissingExtraError without the
        package.
        """
        try:
            from openai import OpenAI
        except ImportError as error:
            raise MissingExtraError("openai", "openai") from error
        endpoint = self.backend().start()
        # The key goes in by ``api_key``: the package would otherwise demand OPENAI_API_KEY.
        headers = {name: value for name, value in endpoint.headers.items() if "Modal" in name}
        return OpenAI(
            base_url=endpoint.base_url,
            **{
                "api_key": self._key().get_secret_value(),
                "timeout": self._patience,
                **arguments,
                "default_headers": headers | arguments.get("default_headers", {}),
            },
        )

    @with_options
    def map(
        self,
        source: str,
        out: str,
        prompt: str | None = None,
        *,
        part_size: int = 500,
        containers: int = 1,
        bucket_secret: str | None = None,
        max_usd: float | None = None,
        **options: Unpack[Options],
    ) -> Mapped:
        """Describe pictures of a Volume or bucket on Modal itself, where they need not travel.

        ``source`` and ``out`` are VOLUME/FOLDER; ``source`` can be s3://BUCKET/FOLDER or gs://...,
        whose credentials are in Modal's Secret ``bucket_secret``. ``out`` gets a ``.jsonl`` for
        each ``part_size`` pictures; pictures that are in one are not described again.
        ``containers`` prepare pictures, on CPUs.

        Blocks until all parts are done; a part that fails is named at the end, and the same call
        later describes only what is missing. ``max_usd``: most that all machines may cost, the
        idle window included; SpendLimitError before anything runs where even the best case is
        over, and at the end where it was reached.
        """
        self._require_real()
        return outside_loop(
            lambda: map_pictures(
                self.spec,
                self.secrets,
                source,
                out,
                prompt,
                options,
                part_size=part_size,
                containers=containers,
                bucket_secret=bucket_secret,
                max_usd=max_usd,
            )
        )

    def _key(self) -> SecretStr:
        if self.api_key is None:
            raise DeployError(
                f"there is no key of {self.name} on this machine",
                hint="pass api_key= or set INTERNVL_MODAL_API_KEY",
            )
        return self.api_key

    @property
    def _engine(self) -> str:
        """Its engine; 0.7.3 where it is from before there was a choice."""
        return self.options.engine or "lmdeploy-0.7.3"

    @property
    def _patience(self) -> float:
        """Seconds for a request that meets a cold start."""
        start = self.options.startup_timeout or self.spec.container.startup_timeout
        return start + self.options.timeout

    @property
    def _known_plan(self) -> Plan | None:
        """What prices pictures, where it is known without asking the Hub for the model."""
        known = "spec" in self.__dict__ or find_model(self.options.model)
        return self.plan if known else None
