"""What a server counts, in Prometheus' text."""

import time
from collections import deque

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one server, apart from those of others in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own = self.registry
        self.requests = Counter("madtp_requests_total", "Requests answered.", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "madtp_request_seconds", "From the first byte to the answer.", ["path"], buckets=SECONDS, registry=own
        )
        self.inside = Gauge("madtp_requests_inside", "Requests being read, waiting or answered.", registry=own)
        self.waiting = Gauge("madtp_units_waiting", "Pictures and texts that wait for the model.", registry=own)
        self.bytes = Gauge("madtp_body_bytes", "Bytes of the bodies of these requests.", registry=own)
        self.batch = Histogram(
            "madtp_batch_units", "Pictures or texts that ran together.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=own
        )
        self.gflops = Counter("madtp_gflops_total", "GFLOPs spent on answers.", ["run"], registry=own)
        self._ended: deque[float] = deque(maxlen=32)

    def done(self, path: str, status: int, seconds: float) -> None:
        """A request was answered or refused."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)
        if status == 200 and path.startswith("/v1/"):
            self._ended.append(time.monotonic())

    def seconds_each(self) -> float:
        """Mean time between the latest answers; 1 where there are too few to tell."""
        if len(self._ended) < 2:
            return 1.0
        return (self._ended[-1] - self._ended[0]) / (len(self._ended) - 1)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
