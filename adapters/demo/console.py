"""Owns the output of a demo: progress while it runs and the report at the end; in colour on a terminal, else plain lines."""

import json
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from adapters.demo.load import Source
from adapters.demo.report import Evidence, Report, Row
from adapters.demo.writing import Written
from poller.domain.wording.numbers_of import inflected, number_of
from poller.output.progress_line import ProgressLine

PLAIN_S = 2.0
"""Seconds between two plain lines of progress."""
WHAT = {
    Source.ORDERS: "Kinesis",
    Source.STOCK: "DynamoDB",
    Source.MAILS: "SQS",
    Source.PAYMENTS: "SQS FIFO",
}
GIVEN_UP_PLACES = {
    Source.ORDERS: "on-failure queue orders-failed",
    Source.STOCK: "on-failure bucket stock-failed",
    Source.MAILS: "dead-letter queue mails-dead",
    Source.PAYMENTS: "dead-letter queue payments-dead.fifo",
}
BURIED_SHOWN_MAX = 3


class Screen:
    """Shows progress on `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.progress = ProgressLine(quiet=console.stderr)
        self._last = 0.0
        self._line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.clear()
        if self._live:
            self._live.stop()

    def doing(self, text: str) -> None:
        """Says what takes a while now, until something is printed or shown."""
        self.progress.say(text)

    def print_line(self, line: str) -> None:
        """Prints one line."""
        self.progress.end()
        self._console.print(line, highlight=False, soft_wrap=not self._console.is_terminal)

    def show(self, evidence: Evidence, written: Written) -> None:
        """Shows the present progress."""
        self.progress.end()
        if self._live:
            self._live.start()
            self._live.update(_progress(evidence, written), refresh=True)
            return
        line = "; ".join(_summary(evidence, written, source) for source in Source)
        now = time.monotonic()
        if line != self._line and now - self._last >= PLAIN_S:
            self._last, self._line = now, line
            self.print_line(line)


def _counts(evidence: Evidence, written: Written, source: Source) -> tuple[int, int, int, int]:
    processed = len([item for item in evidence.load[source] if item in evidence.ledger.processed])
    counters = (evidence.counters or {}).get(source, {})
    filtered = int(counters.get("filtered_out_event_count", 0))
    return written.counts[source], processed, filtered, len(evidence.dead_letters.items[source])


def _summary(evidence: Evidence, written: Written, source: Source) -> str:
    all_written, processed, filtered, buried = _counts(evidence, written, source)
    blocked = evidence.blocked.get(source)
    stood = f", blocked up to {blocked.for_s:.1f} s" if blocked else ""
    return f"{source}: {processed} delivered, {filtered} filtered, {buried} given up of {all_written}{stood}"


def _progress(evidence: Evidence, written: Written) -> Table:
    table = _table("written", "delivered", "filtered", "given up", "blocked up to")
    for source in Source:
        blocked = evidence.blocked.get(source)
        counts = (str(count) for count in _counts(evidence, written, source))
        table.add_row(_title(source), *counts, f"{blocked.for_s:.1f} s" if blocked else "")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("source", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _title(source: Source) -> str:
    return f"{source} ({WHAT[source]})"


def print_report(report: Report, console: Console) -> None:
    """Prints the report as text."""

    def print_text(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, soft_wrap=not console.is_terminal, markup=False)

    table = _table("written", "delivered", "filtered", "given up", "calls", "failed")
    for row in report.rows:
        numbers = (row.written, row.processed, row.filtered, len(row.buried))
        calls = (row.invocations, row.failed_invocations)
        table.add_row(_title(row.source), *(str(each) for each in (*numbers, *calls)))
    console.print(table)
    for row in report.rows:
        print_text(f"{row.source}")
        for line in sentences(row):
            print_text(f"  {line}")
    for note in report.notes:
        print_text(f"note: {note}", "yellow")
    for problem in report.problems:
        print_text(f"PROBLEM: {problem}", "red")
    print_text(_verdict(report), "red" if report.problems else "green")


def _verdict(report: Report) -> str:
    if not report.problems:
        good = (
            "Every record was delivered, in order where there is one, or filtered, or lies where poison goes"
        )
        return f"{good} ({report.seconds:.1f} s)."
    return f"{len(report.problems)} problems ({report.seconds:.1f} s)."


def _were(number: int) -> str:
    return inflected(number, "was", "were")


def sentences(row: Row) -> list[str]:
    """Returns what the numbers of one source mean."""
    lines = []
    if row.buried:
        shown = ", ".join(each.split(" ", 1)[1] for each in row.buried[:BURIED_SHOWN_MAX])
        more = f" and {len(row.buried) - BURIED_SHOWN_MAX} more" if len(row.buried) > BURIED_SHOWN_MAX else ""
        why = f" ({', '.join(row.conditions)})" if row.conditions else ""
        lines.append(
            f"given up: {shown}{more}, tried {number_of(row.most_tries, 'time')}, now in the {GIVEN_UP_PLACES[row.source]}{why}"
        )
    halves = (
        f"; {number_of(row.bisections, 'failing batch', 'failing batches')} {_were(row.bisections)} halved"
        if row.bisections
        else ""
    )
    lines.append(
        f"retried: {number_of(row.retried, 'record')} {_were(row.retried)} delivered again after a failure{halves}"
    )
    if row.blocked:
        blocked = row.blocked
        lines.append(f"blocked: {blocked.where} for {blocked.for_s:.1f} s at most: {blocked.error}")
    if row.repeated:
        lines.append(
            f"repeated: {number_of(row.repeated, 'record')} came again after {inflected(row.repeated, 'it', 'they')} had been processed"
        )
    if row.lanes:
        lines.append(f"order: held in each of {number_of(row.lanes, 'lane')}, by what the function got")
    return lines


def print_json(report: Report) -> None:
    """Prints the report as JSON on standard output."""
    print(json.dumps(report.document(), indent=2))
