"""Owns the figures of the daemon's own output: lines that nobody took."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from poller.output.queued_output import DroppedLines


class OutputCollector(Collector):
    """Reads them when a page is made."""

    def __init__(self, dropped: DroppedLines) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        yield CounterMetricFamily(
            "poller_log_lines_dropped",
            "Lines of stderr and stdout that were dropped, since nobody read them or they could not be written.",
            value=self._dropped.count,
        )
