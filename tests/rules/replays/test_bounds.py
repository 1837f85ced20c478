"""Tests of where a shard ends for a replay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Cursor, Epoch, Page
from poller.rules.replays.bounds import EMPTY_PAGES, LATE_S, BoundedPage, bounded
from tests.rules.build import kinesis

END = Epoch(1000.0)
LATER = Epoch(END + LATE_S)
NEXT = Cursor("next")


UNDATED = -1.0
"""Stands for a record without a time of arrival. It has the moment of the read, which is long after the end."""


def page(
    *arrived: float, cursor: Cursor | None = NEXT, behind_ms: int | None = 0, ended: bool = False
) -> Page:
    records = [
        kinesis(number, arrived=9e9 if moment == UNDATED else moment, dated=moment != UNDATED)
        for number, moment in enumerate(arrived)
    ]
    return Page(records, cursor, behind_ms, ended)


@pytest.mark.parametrize(
    ("found", "now", "kept", "ends"),
    [
        (page(10.0, 1000.0), 5000.0, 2, False),
        (page(10.0, 1000.1), 5000.0, 1, True),
        (page(1000.1, 10.0), 5000.0, 0, True),
        (page(10.0, 1000.1, 11.0, behind_ms=None), 900.0, 1, True),
        (page(10.0, UNDATED, 1000.0), 5000.0, 3, False),
        (page(10.0, UNDATED), 5000.0, 2, False),
        (page(UNDATED), 5000.0, 1, False),
        (page(UNDATED, 1000.1, UNDATED, 10.0), 5000.0, 1, True),
        (page(), LATER, 0, True),
        (page(), LATER - 0.1, 0, False),
        (page(behind_ms=5), LATER, 0, False),
        (page(behind_ms=None), LATER, 0, False),
        (page(10.0), LATER, 1, False),
        (page(cursor=None, ended=True), 0.0, 0, True),
        (page(cursor=None), LATER, 0, False),
    ],
)
def test_a_shard_ends_before_the_first_record_behind_the_end_or_where_nothing_more_can_come(
    found: Page, now: float, kept: int, *, ends: bool
) -> None:
    got = bounded(found, until=END, now=Epoch(now), empty=0).page
    assert (got.records, got.ended) == (found.records[:kept], ends)
    assert got.cursor is None or not ends


def test_many_empty_pages_show_the_end_where_the_source_says_nothing() -> None:
    empty, pages = 0, 0
    while True:
        found = bounded(page(behind_ms=None), until=END, now=LATER, empty=empty)
        pages, empty = pages + 1, found.empty
        if found.page.ended:
            break
    assert pages == EMPTY_PAGES


def test_a_record_between_empty_pages_begins_the_count_again() -> None:
    assert bounded(page(5.0, behind_ms=None), until=END, now=LATER, empty=9) == BoundedPage(
        page(5.0, behind_ms=None), 0
    )


@given(
    pages=st.lists(st.lists(st.floats(0, 2000) | st.just(UNDATED), max_size=5), max_size=8),
    behind=st.sampled_from([None, 0, 100]),
)
def test_a_replay_sees_every_record_before_the_first_that_is_known_to_be_late_and_none_behind_it(
    pages: list[list[float]], behind: int | None
) -> None:
    everything = [moment for each in pages for moment in each]
    expected = next((at for at, moment in enumerate(everything) if moment > END), len(everything))
    seen: list[float] = []
    for each in pages:
        found = bounded(page(*each, behind_ms=behind), until=END, now=Epoch(0.0), empty=0)
        seen += [record.arrived if record.dated else UNDATED for record in found.page.records]
        if found.page.ended:
            break
    assert seen == everything[:expected]
