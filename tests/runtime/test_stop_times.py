"""A stop leaves a time, which only becomes shorter and reaches every scope inside."""

import asyncio
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.runtime.stopping import SLACK_S, Reason, Stop, interrupted_by, unless_stopped
from tests.runtime.daemons import now
from tests.virtual import run_virtual


@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(0, 50)), max_size=6))
def test_the_first_of_all_ends_counts_in_a_scope_and_inside_it(asked: list[tuple[int, int | None]]) -> None:
    """Each pair: a stop is asked for so many seconds later, with so much time."""

    async def main() -> None:
        stop, ends = Stop(), list[float]()
        with stop.child() as inner:
            for after_s, within_s in asked:
                await asyncio.sleep(after_s)
                stop.request(Reason.REQUESTED, within_s=within_s)
                ends += [] if within_s is None else [now() + within_s]
                left_s = min(ends) - now() if ends else None
                assert (stop.left_s, inner.left_s) == (left_s, left_s)
                assert stop.requested
                assert inner.requested
            assert stop.allows(1e9) == (not ends)

    run_virtual(main())


def test_what_fits_the_time_just_so_may_begin_at_once_and_not_later() -> None:
    async def main() -> None:
        stop = Stop()
        stop.request(Reason.REQUESTED, within_s=30.0)
        await asyncio.sleep(0.1)
        assert stop.allows(30.0)
        await asyncio.sleep(SLACK_S)
        assert not stop.allows(30.0)

    run_virtual(main())


def test_a_wait_ends_when_what_it_is_for_may_no_longer_begin() -> None:
    async def main() -> float:
        stop, loop = Stop(), asyncio.get_running_loop()
        loop.call_later(5.0, stop.request, Reason.REQUESTED)
        loop.call_later(50.0, lambda: stop.request(Reason.REQUESTED, within_s=60.0))
        loop.call_later(60.0, lambda: stop.request(Reason.REQUESTED, within_s=30.0))
        async with interrupted_by(stop, needs_s=20.0):
            await asyncio.Event().wait()
        return now()

    assert run_virtual(main()) == 90.0 - 20.0 + SLACK_S


@pytest.mark.parametrize(
    ("stops", "ends_at"),
    [
        ([(5.0, None)], 15.0),
        ([(5.0, None), (9.0, None)], 15.0),
        ([(5.0, None), (9.0, 60.0)], 15.0),
        ([(5.0, 22.0)], 5.0 + 22.0 - 20.0 + SLACK_S),
        ([(5.0, None), (9.0, 22.0)], 9.0 + 22.0 - 20.0 + SLACK_S),
        ([(5.0, 10.0)], 5.0),
    ],
    ids=["no limit", "twice", "a limit later", "a short limit", "a short limit later", "none left"],
)
def test_a_wait_with_a_time_of_its_own_ends_so_long_after_the_first_stop(
    stops: list[tuple[float, float | None]], ends_at: float
) -> None:
    async def main() -> float:
        stop, loop = Stop(), asyncio.get_running_loop()
        for at, within_s in stops:
            loop.call_later(at, partial(stop.request, Reason.REQUESTED, within_s=within_s))
        async with interrupted_by(stop, needs_s=20.0, after_s=10.0):
            await asyncio.Event().wait()
        return now()

    assert run_virtual(main()) == ends_at


def test_a_scope_whose_lease_is_lost_hears_of_no_time() -> None:
    async def main() -> list[Reason]:
        heard, stop = list[Reason](), Stop()
        with stop.listening(lambda: heard.append(stop.reason)):
            stop.request(Reason.LOST)
            stop.request(Reason.REQUESTED, within_s=10.0)
        return heard

    assert run_virtual(main()) == [Reason.LOST]


def test_what_is_waited_for_is_returned_unless_a_stop_comes_first() -> None:
    async def main() -> None:
        stop = Stop()

        async def work() -> str:
            await asyncio.sleep(5.0)
            return "done"

        assert await unless_stopped(stop, work()) == "done"
        asyncio.get_running_loop().call_later(2.0, stop.request, Reason.REQUESTED)
        began = now()
        assert await unless_stopped(stop, work()) is None
        assert now() - began == 2.0
        assert await unless_stopped(stop, work()) is None
        assert await unless_stopped(stop, work(), Reason.LOST) == "done"

    run_virtual(main())
