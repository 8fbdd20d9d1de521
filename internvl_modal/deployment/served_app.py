"""How the ``serve`` function of a deployment is spoken to.

Below ``handle`` and ``backends``, which both need it, so that neither imports the other. Speaks to
nobody until ``start``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import SecretStr

from internvl_modal.deployment.modal_api import web_url
from internvl_modal.engines.registry import engine_of
from internvl_modal.planning.plan import Plan
from internvl_modal.protocol.endpoint import Endpoint, Priced


@dataclass(frozen=True)
class PicturePrices:
    """What pictures cost, without the plan that says so: USD at best and at worst.

    ``by_tiles`` begins with the price of one tile.

    >>> PicturePrices([(0.001, 0.002), (0.002, 0.003)]).picture_cost(2)
    (0.002, 0.003)
    """

    by_tiles: Sequence[Sequence[float]]

    def picture_cost(self, tiles: int) -> tuple[float, float]:
        """Of one picture; of more tiles than one picture can have, as many times as much."""
        low, high = self.by_tiles[min(max(tiles, 1), len(self.by_tiles)) - 1]
        share = max(1.0, tiles / len(self.by_tiles))
        return low * share, high * share


class ServedApp:
    """The ``serve`` function of a deployed app, as a backend.

    With ``proxy``, Modal's own key and secret are sent beside the API key. ``plan`` puts a price
    on estimates; where there is none, ``sessions`` (requests at once), ``startup`` (seconds of a
    cold start, at best and at worst) and ``price`` say what is known of it. ``timeout``, in
    seconds, leaves time for a cold start. Without ``url``, its address up to ``/v1``, ``start``
    asks Modal for it.

    Several clients may share one; it holds no connection.
    """

    name = "modal"

    def __init__(
        self,
        app: str,
        *,
        model: str,
        engine: str = "lmdeploy-0.7.3",
        api_key: SecretStr | str,
        environment: str | None = None,
        proxy: tuple[SecretStr, SecretStr] | None = None,
        plan: Plan | None = None,
        sessions: int | None = None,
        startup: tuple[float, float] | None = None,
        price: Priced | None = None,
        timeout: float | None = None,
        url: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._app, self._environment = app, environment
        self._key = api_key if isinstance(api_key, SecretStr) else SecretStr(api_key)
        self._proxy = proxy
        self._preview = Endpoint(
            "",
            model,
            capabilities=engine_of(engine).capabilities(model),
            timeout=timeout,
            price=plan or price,
            # The most that a batch tries at once: what fits into the KV cache.
            sessions=plan.capacity.sessions if plan else sessions,
            usd_per_hour=plan.cost.per_hour if plan else None,
            idle_usd=plan.cost.idle_window if plan else None,
            start_usd=plan.cost.start[0] if plan else None,
            startup=plan.startup_seconds if plan else startup,
            revision=revision or "",
        )
        self._url = url

    def preview(self) -> Endpoint:
        """What is known of the deployment without asking Modal."""
        return self._preview

    def start(self) -> Endpoint:
        """Return where the deployment answers; raises DeployError if there is none.

        Cheap after the first time: the address is kept.
        """
        if self._url is None:
            self._url = f"{web_url(self._app, 'serve', self._environment)}/v1"
        headers = {"authorization": f"Bearer {self._key.get_secret_value()}"}
        if self._proxy is not None:
            names = ("Modal-Key", "Modal-Secret")
            headers |= {
                name: value.get_secret_value()
                for name, value in zip(names, self._proxy, strict=True)
            }
        return replace(self._preview, base_url=self._url, headers=headers)

    def stop(self) -> None:
        """Leave the deployment as it is: it scales down by itself."""

    def __repr__(self) -> str:
        return f"ServedApp({self._app!r})"


class FixedBackend:
    """An engine's server that serves InternVL at a known URL.

    For a container that asks its own server on loopback, where Modal need not be asked for a URL.
    """

    name = "modal"

    def __init__(
        self, base_url: str, api_key: str, model: str, engine: str = "lmdeploy-0.7.3"
    ) -> None:
        headers = {"authorization": f"Bearer {api_key}"}
        capabilities = engine_of(engine).capabilities(model)
        self._endpoint = Endpoint(base_url, model, headers, capabilities)

    def start(self) -> Endpoint:
        """Return where it answers."""
        return self._endpoint

    def stop(self) -> None:
        """Do nothing: the server is not ours."""
