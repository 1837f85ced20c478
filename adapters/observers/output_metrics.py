"""Owns the metric of the daemon's own output: lines that were dropped because nobody read them."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from poller.output.queued_output import DroppedLines


class OutputCollector(Collector):
    """Reads the count of dropped lines when a page of metrics is made."""

    def __init__(self, dropped: DroppedLines) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        """Yields the one metric."""
        yield CounterMetricFamily(
            "poller_log_lines_dropped",
            "Lines of stderr and stdout that were dropped, since nobody read them or they could not be written.",
            value=self._dropped.count,
        )
