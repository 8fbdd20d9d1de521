"""What the gateway counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import Request

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600)
"""From a cached answer to a cold start and its wait."""


class Metrics:
    """Counters of one app, in a registry of its own.

    No labels that a caller can choose: each value would be a series for ever.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "internvl_gateway_requests", "Requests answered.", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "internvl_gateway_seconds", "Seconds to an answer.", buckets=SECONDS, registry=registry
        )
        self.tokens = Counter(
            "internvl_gateway_completion_tokens", "Tokens written.", registry=registry
        )

    def observe(self, request: Request, status: int, seconds: float) -> None:
        """Count one answered request; only descriptions, not health checks and scrapes."""
        if request.method == "POST":
            self._requests.labels(str(status)).inc()
            self._seconds.observe(seconds)
