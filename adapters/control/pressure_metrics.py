"""Owns the server's own metrics: open connections, what was refused, closed idle connections, and descriptors that lacked."""

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from adapters.control.pressure import ClientConnections, Reason


class PressureFigures(Collector):
    """An Exposition of the server's connections."""

    def __init__(self, clients: ClientConnections) -> None:
        self._clients = clients
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def exposition(self) -> tuple[bytes, str]:
        """Returns the page's body and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        yield GaugeMetricFamily(
            "poller_http_connections",
            "Connections to the daemon's own port.",
            value=self._clients.connections,
        )
        refused = CounterMetricFamily(
            "poller_http_refused",
            "Connections and requests to the daemon's own port that were refused, by the limit.",
            labels=("limit",),
        )
        for reason in Reason:
            refused.add_metric((reason,), self._clients.refused[reason])
        yield refused
        yield CounterMetricFamily(
            "poller_http_idle_closed",
            "Idle connections that were closed to make room for new ones.",
            value=self._clients.closed_idle,
        )
        yield CounterMetricFamily(
            "poller_http_without_descriptor",
            "Times that the daemon's own port could accept no connection because no file descriptor was left.",
            value=self._clients.without_descriptor,
        )
