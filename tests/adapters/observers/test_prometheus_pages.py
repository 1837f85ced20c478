"""The page of many mappings is made in short steps, and is the same page."""

import time

import pytest
from prometheus_client import generate_latest

from adapters.observers import prometheus
from adapters.observers.metrics import Figures
from adapters.observers.prometheus import PrometheusObserver
from poller.domain.records import MappingId
from poller.testing.telemetry_events import SetClock, one_of_each
from tests.adapters.control.serving import Running, Setting, serving
from tests.bounds.loop_steps import longest_step

STEP_S_MAX = 0.05
TRIES = 5
"""A step that is really long is long each time."""


def observer(mappings: int) -> PrometheusObserver:
    """One that has seen an event of each kind of so many mappings."""
    clock = SetClock()
    found = PrometheusObserver(Figures(clock), clock)
    for number in range(mappings):
        for event in one_of_each(MappingId(f"{number:08d}-0000-4000-8000-000000000000"), number=number):
            found.on(event)
    return found


def ours(page: bytes) -> list[bytes]:
    """The lines of a page without those of the process, which change all the time."""
    return [line for line in page.splitlines() if b"process_" not in line]


@pytest.mark.parametrize("mappings", [0, 1, 49, 50, 51, 130])
@pytest.mark.parametrize("in_slice", [1, 7, 50])
def test_a_page_in_slices_is_the_page_in_one_go(
    monkeypatch: pytest.MonkeyPatch, mappings: int, in_slice: int
) -> None:
    monkeypatch.setattr(prometheus, "MAPPINGS_IN_SLICE", in_slice)
    sliced = ours(observer(mappings).exposition()[0])
    monkeypatch.setattr(prometheus, "MAPPINGS_IN_SLICE", 1_000_000)
    whole = ours(observer(mappings).exposition()[0])
    assert sliced == whole
    heads = [line for line in whole if line.startswith(b"# TYPE ")]
    assert len(heads) == len(set(heads))


def test_the_page_is_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    found = observer(30)
    page = found.exposition()[0]
    monkeypatch.setattr(prometheus, "MAPPINGS_IN_SLICE", 1_000_000)
    lines = ours(generate_latest(found._registry))
    # The library gives an empty part of the blocked shards a head of its own.
    assert [line for line in ours(page) if line.startswith(b"poller_")] == [
        line for line in lines if line.startswith(b"poller_")
    ]


def test_no_slice_of_a_page_of_a_thousand_mappings_is_long() -> None:
    longest = [_longest_slice_s(observer(1000))]
    while longest[-1] >= STEP_S_MAX:
        assert len(longest) < TRIES, f"slices of {longest} s"
        longest.append(_longest_slice_s(observer(1000)))


def _longest_slice_s(found: PrometheusObserver) -> float:
    longest = 0.0
    work = found.slices()
    while True:
        began = time.thread_time()
        try:
            next(work)
        except StopIteration:
            break
        finally:
            longest = max(longest, time.thread_time() - began)
    return longest


def test_a_scrape_of_a_thousand_mappings_has_no_long_step() -> None:
    async def scrape(run: Running) -> tuple[float, bytes]:
        step_s, page = 0.0, b""
        for _ in range(TRIES):
            with longest_step() as longest:
                _, page, _ = await run.exact("GET", "/metrics")
            step_s = longest.seconds
            if step_s < STEP_S_MAX:
                break
            # It is made again.
            found._page = b""
        return step_s, page

    found = observer(1000)
    step_s, page = serving(scrape, Setting(expositions=(found,), patience_s=60.0))
    assert step_s < STEP_S_MAX
    assert page.count(b"\npoller_polled_event_count_total{") == 1000
