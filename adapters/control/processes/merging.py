"""Owns the page of metrics of several processes: all pages in one, with the label `process` in front of the labels of each sample.

Prometheus wants all samples of a metric together below one HELP and one TYPE line. Series of different processes differ by the
label only, so sums over processes are `sum without (process) (…)`.
"""

from collections.abc import Generator, Sequence

from poller.domain.supervision.processes import ProcessAnswer, ProcessState

LINES_IN_SLICE = 500
"""Lines that are read between two turns of the loop; about a millisecond."""
_HEADS = (b"# HELP ", b"# TYPE ")


class _Family:
    """The lines of one metric."""

    def __init__(self) -> None:
        self.heads: dict[bytes, bytes] = {}
        self.samples: list[bytes] = []


def merged(pages: Sequence[ProcessAnswer]) -> Generator[None, None, bytes]:
    """Merges pages in Prometheus' text format, in slices of about a millisecond. Of HELP and TYPE the first ones count."""
    families: dict[bytes, _Family] = {}
    lines = 0
    for page in pages:
        label = b'process="%d"' % page.index
        family = families.setdefault(b"", _Family())
        for line in page.body.splitlines():
            lines += 1
            if lines % LINES_IN_SLICE == 0:
                yield
            if line.startswith(_HEADS):
                name = line.split(b" ", 3)[2]
                family = families.setdefault(name, _Family())
                family.heads.setdefault(line[: len(_HEADS[0])], line)
            elif b" " in line and not line.startswith(b"#"):
                family.samples.append(_labelled(line, label))
    text = bytearray()
    for family in families.values():
        text += b"".join(each + b"\n" for each in (*family.heads.values(), *family.samples))
        yield
    return bytes(text)


def _labelled(sample: bytes, label: bytes) -> bytes:
    """Adds a label to `name value` or `name{labels} value`. A name has neither blank nor brace."""
    brace, blank = sample.find(b"{"), sample.find(b" ")
    if not 0 <= brace < blank:
        return b"%b{%b}%b" % (sample[:blank], label, sample[blank:])
    rest = sample[brace + 1 :]
    return b"%b{%b%b%b" % (sample[:brace], label, b"" if rest.startswith(b"}") else b",", rest)


def page_of_states(states: Sequence[ProcessState], answering: frozenset[int]) -> bytes:
    """The page about the processes themselves: which of them answer, and how often they were started again."""
    ups = [f'poller_process_up{{process="{each.index}"}} {int(each.index in answering)}' for each in states]
    restarts = [f'poller_process_restarts_total{{process="{each.index}"}} {each.restarts}' for each in states]
    lines = [
        "# HELP poller_process_up 1 while a process of this daemon runs and answers, else 0.",
        "# TYPE poller_process_up gauge",
        *ups,
        "# HELP poller_process_restarts_total How often a process was started again after it had ended.",
        "# TYPE poller_process_restarts_total counter",
        *restarts,
    ]
    return "".join(f"{line}\n" for line in lines).encode()
