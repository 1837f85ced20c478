"""Owns facts of a listing that several callers share: which answers are used for whom, and what interrupts it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.sources.listings import shared_listing
from adapters.sources.listings.shared_listing import (
    FAILURES_MAX,
    THROTTLES_MAX,
    ShardPage,
    SharedListing,
)
from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import Monotonic, Shard, ShardId
from poller.domain.telemetry.labels import SourceCall
from poller.source_ports.calls import CallCounter
from tests.virtual import run_virtual, virtual_clock

PAGES = 4


def now() -> float:
    """Virtual time."""
    return asyncio.get_running_loop().time()


@dataclass
class Stamps:
    """A service with `PAGES` pages. Each has one shard, whose id says when the page was asked for: a stamp, and the time."""

    takes_s: float = 1.0
    pages: int = PAGES
    trouble: list[PortError | None] = field(default_factory=list)
    """What the next calls raise, one each; None: nothing."""
    calls: list[tuple[float, str | None]] = field(default_factory=list)
    stamp: int = 0

    def next_stamp(self) -> int:
        self.stamp += 1
        return self.stamp

    async def page(self, token: str | None, count: CallCounter) -> ShardPage:
        count(SourceCall.LIST_SHARDS)
        stamp, asked = self.next_stamp(), now()
        self.calls.append((asked, token))
        await asyncio.sleep(self.takes_s)
        error = self.trouble.pop(0) if self.trouble else None
        if error is not None:
            raise error
        number = int(token or 0) + 1
        return ShardPage([Shard(ShardId(f"{stamp} {asked}"))], None if number == self.pages else str(number))

    def listing(self) -> SharedListing:
        return SharedListing(self.page, operation="kinesis ListShards", clock=virtual_clock())

    @property
    def walks(self) -> int:
        """How often the first page was asked for."""
        return sum(token is None for _, token in self.calls)


def stamps(shards: Sequence[Shard]) -> list[int]:
    """When the pages of an answer were asked for."""
    return [int(each.shard_id.split()[0]) for each in shards]


def times(shards: Sequence[Shard]) -> list[float]:
    """The same by the clock."""
    return [float(each.shard_id.split()[1]) for each in shards]


async def ask(listing: SharedListing, since: Monotonic | None) -> Sequence[Shard]:
    """All shards, from now on or from a moment on."""
    return await listing.listed() if since is None else (await listing.since(since)).shards


ERRORS = st.sampled_from([ServiceThrottled, ServiceUnavailable, CursorExpired, AccessDenied, ResourceMissing])
CALLS = st.lists(
    st.tuples(
        st.floats(0, 20).map(lambda at: round(at, 1)),
        st.none() | st.floats(0, 10).map(lambda age: round(age, 1)),
        st.none() | st.floats(0, 5).map(lambda patience: round(patience, 1)),
    ),
    min_size=1,
    max_size=12,
)


@given(
    calls=CALLS,
    trouble=st.lists(st.none() | ERRORS.map(lambda kind: kind("no")), max_size=20),
    takes_s=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_no_caller_gets_a_page_that_was_asked_for_before_the_moment_that_it_named(
    calls: list[tuple[float, float | None, float | None]], trouble: list[PortError | None], takes_s: float
) -> None:
    service = Stamps(takes_s, trouble=trouble)

    async def call(listing: SharedListing, at: float, age: float | None, patience: float | None) -> None:
        await asyncio.sleep(at)
        began = service.next_stamp()
        since = None if age is None else Monotonic(now() - age)
        try:
            async with asyncio.timeout(patience):
                found = await ask(listing, since)
        except (PortError, TimeoutError):
            return
        assert len(found) == PAGES, "an answer has all pages"
        if since is None:
            assert min(stamps(found)) > began
        else:
            assert min(times(found)) >= since

    async def main() -> None:
        listing = service.listing()
        async with asyncio.TaskGroup() as group:
            for each in calls:
                group.create_task(call(listing, *each))

    run_virtual(main())


@given(st.lists(st.floats(0, 3), min_size=2, max_size=40))
@settings(max_examples=50, deadline=None)
def test_callers_who_come_while_one_is_served_share_the_next_listing(moments: list[float]) -> None:
    service = Stamps()

    async def main() -> None:
        listing = service.listing()

        async def call(at: float) -> None:
            await asyncio.sleep(at)
            await listing.listed()

        async with asyncio.TaskGroup() as group:
            for at in [0.0, *moments]:
                group.create_task(call(at))

    run_virtual(main())
    assert service.walks <= 2, "the first lasts four seconds, and all others came within three"


@pytest.mark.parametrize(("age_s", "walks"), [(None, 2), (0.0, 2), (5.9, 2), (6.0, 1), (60.0, 1)], ids=str)
def test_an_answer_is_used_again_for_who_takes_one_of_its_age(age_s: float | None, walks: int) -> None:
    service = Stamps()

    async def main() -> None:
        listing = service.listing()
        await listing.listed()
        await asyncio.sleep(2.0)
        await ask(listing, None if age_s is None else Monotonic(now() - age_s))

    run_virtual(main())
    assert service.walks == walks


def test_who_takes_an_older_answer_joins_the_listing_that_runs() -> None:
    service = Stamps()

    async def main() -> None:
        listing = service.listing()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(listing.listed())
            await asyncio.sleep(1.5)
            second = group.create_task(ask(listing, Monotonic(0.0)))
        assert first.result() == second.result()

    run_virtual(main())
    assert service.walks == 1


@pytest.mark.parametrize("error", [ServiceThrottled, ServiceUnavailable])
def test_an_interrupted_listing_goes_on_at_its_page(error: type[PortError]) -> None:
    rest = [error("no")] * (THROTTLES_MAX + 1 if error is ServiceThrottled else 1)
    service = Stamps(trouble=[None, None, *rest])

    async def main() -> None:
        listing = service.listing()
        wanted = Monotonic(now())
        with pytest.raises(error):
            await ask(listing, wanted)
        assert len(await ask(listing, wanted)) == PAGES

    run_virtual(main())
    assert service.walks == 1
    assert [token for _, token in service.calls[-2:]] == ["2", "3"]


def test_a_listing_from_now_on_does_not_go_on_with_an_interrupted_one() -> None:
    service = Stamps(trouble=[None, ServiceUnavailable("no")])

    async def main() -> None:
        listing = service.listing()
        with pytest.raises(ServiceUnavailable):
            await listing.listed()
        assert len(await listing.listed()) == PAGES

    run_virtual(main())
    assert service.walks == 2


def test_a_page_that_fails_every_time_is_not_asked_for_for_ever() -> None:
    service = Stamps(trouble=[None, *[ServiceUnavailable("no")] * FAILURES_MAX])

    async def main() -> None:
        listing = service.listing()
        for _ in range(FAILURES_MAX):
            with pytest.raises(ServiceUnavailable):
                await ask(listing, Monotonic(0.0))
        assert len(await ask(listing, Monotonic(0.0))) == PAGES

    run_virtual(main())
    assert service.walks == 2


def test_a_throttle_between_pages_is_waited_out_and_one_of_the_first_page_is_reported() -> None:
    service = Stamps(takes_s=0.0, trouble=[ServiceThrottled("no"), None, None, *[ServiceThrottled("no")] * 4])

    async def main() -> None:
        listing = service.listing()
        with pytest.raises(ServiceThrottled):
            await listing.listed()
        assert now() == 0.0
        assert len(await listing.listed()) == PAGES
        assert 3.75 <= now() <= 7.5, "0.5, 1, 2 and 4 seconds, each with jitter"

    run_virtual(main())
    assert len(service.calls) == 1 + PAGES + 4


def test_a_failure_is_that_of_all_who_waited_and_of_nobody_later() -> None:
    service = Stamps(trouble=[AccessDenied("one"), AccessDenied("two")])
    said: list[str] = []

    async def main() -> None:
        listing = service.listing()

        async def call() -> None:
            try:
                await listing.listed()
            except AccessDenied as error:
                said.append(error.reason)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(call())
        assert len(await listing.listed()) == PAGES

    run_virtual(main())
    assert said == ["one", *["two"] * 19]


def test_a_caller_that_gives_up_leaves_its_pages_to_the_next_one() -> None:
    service = Stamps()

    async def main() -> None:
        listing = service.listing()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await listing.listed()
        assert len(await ask(listing, Monotonic(0.0))) == PAGES

    run_virtual(main())
    assert [token for _, token in service.calls] == [None, "1", "2", "2", "3"]


def test_more_than_the_limit_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_listing, "SHARDS_MAX", 3)
    service = Stamps(takes_s=0.0)

    async def main() -> None:
        with pytest.raises(ServiceUnavailable, match="more than 3 shards or 2000 pages"):
            await service.listing().listed()

    run_virtual(main())
    monkeypatch.setattr(shared_listing, "SHARDS_MAX", 10)
    monkeypatch.setattr(shared_listing, "PAGES_MAX", 3)
    with pytest.raises(ServiceUnavailable, match="more than 10 shards or 3 pages"):
        run_virtual(service.listing().listed())


def test_a_walk_counts_for_the_caller_that_makes_it_and_not_for_those_that_wait_for_it() -> None:
    service = Stamps()
    first: list[SourceCall] = []
    second: list[SourceCall] = []
    third: list[SourceCall] = []

    async def main() -> None:
        listing = service.listing()
        async with asyncio.TaskGroup() as callers:
            callers.create_task(listing.listed(first.append))
            await asyncio.sleep(0.5)
            callers.create_task(listing.listed(second.append))
            callers.create_task(listing.listed(third.append))

    run_virtual(main())
    assert (len(first), len(second), len(third)) == (PAGES, PAGES, 0)
    assert len(service.calls) == 2 * PAGES
