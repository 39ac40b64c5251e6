"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Counters of one server.

    Args:
        waiting: how many items wait in the queue now.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("deixis_requests", "Requests answered", ["route", "status"], registry=self.registry)
        self.seconds = Histogram("deixis_request_seconds", "Time to the answer", ["route"], registry=self.registry)
        self.batches = Histogram(
            "deixis_batch_items", "Items per batch", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        Gauge("deixis_waiting_items", "Items in the queue", registry=self.registry).set_function(waiting)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One more request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All counters, in Prometheus's text form."""
        return generate_latest(self.registry)
