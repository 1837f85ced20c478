"""One page of metrics of several processes."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from adapters.control.processes.merging import merged, page_of_states
from poller.domain.records import WorkerId
from poller.domain.supervision.processes import ProcessAnswer, ProcessState
from tests.bounds.slices import finished

HOSTILE = 'a{b="c"} 1\n# HELP x "\\ ,}'


def _page(number: int) -> bytes:
    registry = CollectorRegistry()
    Gauge("plain", "Has no labels.", registry=registry).set(number)
    calls = Counter("calls", "Is counted.", labelnames=("function",), registry=registry)
    for name in ("one", HOSTILE, "with blank"):
        calls.labels(name).inc(number)
    Histogram("took_seconds", "Has buckets.", registry=registry).observe(number)
    return generate_latest(registry)


def _merged(pages: Sequence[bytes]) -> bytes:
    return finished(merged([ProcessAnswer(index, page) for index, page in enumerate(pages)]))


def test_each_series_of_each_process_is_there_once_and_differs_by_its_label() -> None:
    pages = [_page(1), _page(2)]
    text = _merged(pages).decode()
    found = [
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    expected = [
        (sample.name, tuple(sorted((sample.labels | {"process": str(index)}).items())), sample.value)
        for index, page in enumerate(pages)
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    assert sorted(found) == sorted(expected)
    assert len(set(found)) == len(found) > 2 * len(("plain", "calls", "took"))


def test_all_samples_of_a_metric_stand_together_below_one_head() -> None:
    lines = _merged([_page(1), _page(2), _page(3)]).decode().splitlines()
    heads = [line for line in lines if line.startswith("# TYPE")]
    assert len(set(heads)) == len(heads)
    at = lines.index("# TYPE plain gauge")
    assert lines[at + 1 : at + 4] == [f'plain{{process="{index}"}} {index + 1}.0' for index in range(3)]


def test_a_metric_that_only_one_process_has_is_kept() -> None:
    page = _merged([b"# HELP a b\n# TYPE a gauge\na 1\n", b"# HELP c d\n# TYPE c gauge\nc{} 2\n"])
    assert page.splitlines()[2] == b'a{process="0"} 1'
    assert page.splitlines()[-1] == b'c{process="1"} 2'


def test_a_long_page_is_merged_in_many_slices() -> None:
    page = b"# HELP a b\n# TYPE a gauge\n" + b"".join(b'a{n="%d"} 1\n' % number for number in range(20_000))
    slices = sum(1 for _ in merged([ProcessAnswer(0, page)]))
    assert slices >= 40


def test_the_processes_have_metrics_of_their_own() -> None:
    states = [
        ProcessState(index=0, worker=WorkerId("w-0"), pid=5, begun=True),
        ProcessState(index=1, worker=WorkerId("w-1"), restarts=3, ended="it has ended"),
    ]
    page = page_of_states(states, frozenset({0})).decode()
    found = {
        (sample.name, sample.labels["process"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert found == {
        ("poller_process_up", "0"): 1,
        ("poller_process_up", "1"): 0,
        ("poller_process_restarts_total", "0"): 0,
        ("poller_process_restarts_total", "1"): 3,
    }
