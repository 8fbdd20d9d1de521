"""A deployment on Modal: to ask it, look at it, scale it, stop it.

A handle holds names and keys and no connection: it can be kept, sent to another process and used
after the app was deployed anew. Each method asks Modal when it is called.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import SecretStr
from typing_extensions import Unpack

from internvl_modal._utils.lazy_module import LazyModule
from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.sync import Client
from internvl_modal.deployment import modal_api
from internvl_modal.deployment.design import make_spec
from internvl_modal.deployment.keys import container_variables
from internvl_modal.deployment.modal_api import errors_of, outside_loop
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.planned import planned
from internvl_modal.deployment.remote_batch import Mapped, map_pictures
from internvl_modal.deployment.served_app import ServedApp
from internvl_modal.deployment.spec import DeploymentSpec
from internvl_modal.errors import ConfigError, DeployError, MissingExtraError
from internvl_modal.models.catalogue import find_model
from internvl_modal.planning.cost import Cost
from internvl_modal.planning.plan import Plan
from internvl_modal.schema.options import Options, with_options

if TYPE_CHECKING:
    import openai
else:
    openai = LazyModule("openai")

State: TypeAlias = Literal["stopped", "cold", "starting", "ready"]


@dataclass(frozen=True)
class Status:
    """One moment of the model's server.

    "cold": the next request starts it; "starting": requests wait and none is answered yet.
    """

    state: State
    containers: int
    running: int
    """Requests being answered."""
    waiting: int
    """Requests that wait for a container."""


@dataclass(frozen=True)
class Deployment:
    """An app on Modal that serves a model, or with ``dry_run`` what it would be.

    Methods that ask Modal raise DeployError.

    Made by ``deploy`` and ``connect``, never by hand. With ``dry_run`` only ``spec``, ``plan``,
    ``cost`` and the names work; the rest raises DeployError.

    >>> found = connect("internvl2_5-8b")  # doctest: +SKIP
    >>> with found.client() as client:  # doctest: +SKIP
    ...     print(client.describe("photo.jpg"))
    """

    options: DeployOptions
    """What was chosen, as far as this machine knows; name, model and GPU at least."""
    api_key: SecretStr | None = field(repr=False)
    """None where this machine does not know it: such a deployment can be managed, not asked."""
    proxy: tuple[SecretStr, SecretStr] | None = field(default=None, repr=False)
    found_urls: Mapping[str, str] | None = field(default=None, repr=False)
    """None where it was only a dry run."""

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

    @cached_property
    def spec(self) -> DeploymentSpec:
        """All of it, as plain data; asks the Hub for a model that is not in the catalog."""
        return make_spec(self.options, planned(self.options, "catalogue"))

    @property
    def name(self) -> str:
        """The app's name."""
        assert self.options.name is not None  # nosec B101  # design sets it: for the type checker
        return self.options.name

    @property
    def model(self) -> str:
        """The name the model is served by."""
        return self.options.model.rpartition("/")[2].lower()

    @property
    def plan(self) -> Plan:
        """Memory, capacity and cost of what was deployed."""
        return self.spec.plan

    @property
    def dry_run(self) -> bool:
        """Whether nothing was made."""
        return self.found_urls is None

    @property
    def urls(self) -> Mapping[str, str]:
        """Where it answers: ``openai`` (up to ``/v1``) and ``rest``.

        As they were when the handle was made: Modal's URLs follow from names and do not change with
        a deploy.
        """
        if self.found_urls is None:
            raise DeployError(
                f"{self.name} was only a dry run", hint="deploy it without dry_run=True"
            )
        return self.found_urls

    @property
    def secrets(self) -> dict[str, str]:
        """The variables that let a container ask this deployment."""
        return container_variables(self._key(), self.proxy)

    def cost(self) -> Cost:
        """USD an hour, an idle window, a start, a thousand pictures."""
        return self.plan.cost

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
            api_key=self._key(),
            proxy=self.proxy,
            plan=self._known_plan,
            timeout=self._patience,
            url=url,
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
        **options: Unpack[Options],
    ) -> Mapped:
        """Describe pictures of a Volume or bucket on Modal itself, where they need not travel.

        ``source`` and ``out`` are VOLUME/FOLDER; ``source`` can be s3://BUCKET/FOLDER or gs://...,
        whose credentials are in Modal's Secret ``bucket_secret``. ``out`` gets a ``.jsonl`` for
        each ``part_size`` pictures; pictures that are in one are not described again.
        ``containers`` prepare pictures, on CPUs.

        Blocks until all parts are done; a part that fails is named at the end, and the same call
        later describes only what is missing.
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
            )
        )

    def status(self) -> Status:
        """Containers, requests and state of the model's server.

        Modal's statistics tell them: the server itself is neither woken nor kept awake.
        """
        self._require_real()
        if outside_loop(lambda: modal_api.tags_of(self.name, self.options.environment)) is None:
            return Status("stopped", 0, 0, 0)
        with errors_of(f"asking for the state of {self.name}"):
            stats = outside_loop(self._serve().get_current_stats)
        state: State = "ready" if stats.num_total_runners else "cold"
        if stats.backlog and not stats.num_running_inputs:
            state = "starting"
        return Status(state, stats.num_total_runners, stats.num_running_inputs, stats.backlog)

    def logs(self, *, tail: int = 100, follow: bool = False) -> Iterator[str]:
        """The last ``tail`` lines of the app's log; with ``follow`` new ones as they come."""
        import modal

        self._require_real()
        if tail < 0:
            raise ConfigError(f"tail = {tail}: it must be at least 0")
        # Each ``next`` is a call of its own, in a thread where a loop runs here: the iterator is
        # Modal's and blocks between two lines.
        with errors_of(f"reading the log of {self.name}"):
            app = outside_loop(
                lambda: modal.App.lookup(self.name, environment_name=self.options.environment)
            )
            sources = [
                *([app.logs.tail(tail)] if tail else []),
                *([app.logs.stream()] if follow else []),
            ]
            for source in sources:
                entries = iter(source)
                while (entry := outside_loop(partial(next, entries, None))) is not None:
                    yield entry.message.rstrip("\n")

    def scale(self, *, min: int | None = None, max: int | None = None) -> None:
        """Change how many GPU containers run at least and at most, until the next deploy.

        Containers that run are not stopped by it before they are idle.
        """
        self._require_real()
        wanted = {"min_containers": min, "max_containers": max}
        given = {name: value for name, value in wanted.items() if value is not None}
        if not given:
            raise ConfigError("scale changes nothing", hint="give a minimum, a maximum or both")
        # A maximum of 0 would be an app that takes requests and never answers one.
        if (min or 0) < 0 or (max is not None and max < builtins.max(min or 0, 1)):
            raise ConfigError(
                f"min = {min}, max = {max}: these are no numbers of containers",
                hint="give a minimum of 0 or more, and a maximum of 1 or more that is not below it",
            )
        with errors_of(f"scaling {self.name}"):
            outside_loop(lambda: self._serve().autoscaler.update(**given))

    def stop(self) -> None:
        """Stop the app and all its containers; weights and key are kept for the next deploy."""
        import modal

        self._require_real()
        with errors_of(f"stopping {self.name}"):
            outside_loop(
                lambda: modal.App.lookup(
                    self.name, environment_name=self.options.environment
                ).stop()
            )

    def _key(self) -> SecretStr:
        if self.api_key is None:
            raise DeployError(
                f"there is no key of {self.name} on this machine",
                hint="pass api_key= or set INTERNVL_MODAL_API_KEY",
            )
        return self.api_key

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

    def _serve(self) -> Any:
        return modal_api.function(self.name, "serve", self.options.environment)

    def _require_real(self) -> None:
        """Raise DeployError where there is nothing on Modal."""
        _ = self.urls  # raises it; an assertion would be gone under ``python -O``
