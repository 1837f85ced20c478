"""A redrive calls the function again with batches that were given up, and removes the notices of those that succeed."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from poller.domain.errors import PortError, PositionTrimmed, ServiceUnavailable
from poller.domain.invocations import (
    FunctionError,
    Notice,
    Outcome,
    StoredNotice,
    Succeeded,
    Throttled,
    with_member,
    with_payload,
)
from poller.domain.operations import OperationState
from poller.domain.plan import MappingPlan, StreamPolicy
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import Cursor, Page, ShardId
from poller.rules.operations.redriving import RedriveTally
from poller.runtime.operations.long.redriving import TRIES_MAX, Redrive
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.operations.redriving import StreamRedrive
from tests.runtime.fakes import (
    SHARD,
    FakeDestination,
    FakeFunction,
    FakeStream,
    mapping,
    poison,
    records,
    stream_parts,
)
from tests.runtime.streams.test_stream_mapping import run_mapping
from tests.virtual import run_virtual, virtual_clock

GIVING_UP = mapping(
    batch=BatchPolicy(records_max=2), retry=RetryPolicy(retries_max=0, backoff=Backoff(base_s=0.0, cap_s=0.0))
)
NUMBERS = range(1, 11)
BATCHES = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]


class FakeNotices:
    """A place of notices; `trouble` is raised by the next calls of each method, one each."""

    def __init__(self, found: Sequence[Notice], document: Callable[[Notice], bytes]) -> None:
        self.held = {each.notice_id: StoredNotice(each.notice_id, document(each)) for each in found}
        self.objects: dict[tuple[str, str], bytes] = {}
        self.trouble: list[PortError] = []
        self._read: set[str] = set()

    def _call(self) -> None:
        if self.trouble:
            raise self.trouble.pop(0)

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        self._call()
        found = [each for each in self.held.values() if each.place not in self._read][:notices_max]
        self._read |= {each.place for each in found}
        return found

    async def remove(self, notice: StoredNotice) -> None:
        self._call()
        self.held.pop(notice.place, None)

    async def leave(self, notice: StoredNotice) -> None:
        self._call()

    async def payload(self, bucket: str, key: str) -> bytes:
        self._call()
        return self.objects[bucket, key]

    def opened_again(self) -> None:
        """The next reader begins."""
        self._read.clear()


def given_up(plan: MappingPlan = GIVING_UP) -> tuple[FakeStream, list[Notice]]:
    """A stream of ten records, and the notices of its batches, which have all failed."""
    stream, destination = FakeStream(), FakeDestination()
    stream.put(*records(*NUMBERS))
    fails = FakeFunction(lambda _: FunctionError("ValueError", "no"))
    run_mapping(lambda: stream_parts(stream, fails, plan=plan, destination=destination), for_s=5)
    return stream, destination.notices


async def unsaid(_why: str) -> None:
    """Nobody reads what it waits for."""


async def unseen(_tally: RedriveTally) -> None:
    """Nobody looks how far it is."""


def redriven(
    stream: FakeStream,
    notices: FakeNotices,
    function: FakeFunction,
    *,
    limit: int | None = None,
    per_s: float | None = None,
    stop_after: int | None = None,
    held: Callable[[], bool] = lambda: False,
    plan: MappingPlan = GIVING_UP,
) -> RedriveTally | None:
    """Redrives the notices once, and stops after so many of them."""

    async def main() -> RedriveTally | None:
        stop = Stop()

        async def changed(tally: RedriveTally) -> None:
            if tally.notices == stop_after:
                stop.request(Reason.REQUESTED)

        redrive = Redrive(
            StreamRedrive(stream_parts(stream, function, plan=plan)),
            notices,
            stop,
            clock=virtual_clock(),
            wait_s=lambda tries: 0.5 * 2**tries,
            held=held,
            changed=changed,
            waits=unsaid,
        )
        return await redrive.run(limit=limit, per_s=per_s)

    return run_virtual(main())


def in_object(notice: Notice) -> bytes:
    """The document of a notice whose event is in an object."""
    return with_member(notice, "payloadObject", {"bucket": "b", "key": notice.notice_id, "sizeBytes": 1})


@pytest.mark.parametrize("document", [with_payload, in_object, lambda notice: notice.document])
def test_batches_are_called_again_as_they_were_and_their_notices_removed(
    document: Callable[[Notice], bytes],
) -> None:
    stream, found = given_up()
    notices, function = FakeNotices(found, document), FakeFunction()
    notices.objects = {("b", each.notice_id): with_payload(each) for each in found}
    tally = redriven(stream, notices, function)
    assert function.calls == BATCHES
    assert notices.held == {}
    assert tally is not None
    assert tally.result().state is OperationState.DONE
    assert tally.result().result == "5 batches settled (10 records)"


def test_neighbouring_batches_are_read_once() -> None:
    """A shard takes five reads in a second from all of its readers."""
    stream, found = given_up()
    notices, function = FakeNotices(found, lambda notice: notice.document), FakeFunction()
    before = len(stream.reads)
    redriven(stream, notices, function)
    assert function.calls == BATCHES
    assert len(stream.reads) == before + 1


def test_lanes_are_told_apart_when_records_are_read_again() -> None:
    plan = replace(GIVING_UP, stream=StreamPolicy(lanes=2))
    stream, destination = FakeStream(), FakeDestination()
    stream.put(*(each for n in NUMBERS for each in records(n, key="ab"[n % 2])))
    fails = FakeFunction(lambda _: FunctionError("ValueError", "no"))
    run_mapping(lambda: stream_parts(stream, fails, plan=plan, destination=destination), for_s=5)
    notices, function = FakeNotices(destination.notices, lambda notice: notice.document), FakeFunction()

    async def main() -> None:
        parts = stream_parts(stream, function, plan=plan)
        for each in list(notices.held.values()):
            called = await StreamRedrive(parts).again(each, notices, Stop())
            assert called is not None
            assert called.records == 2

    run_virtual(main())
    assert sorted(function.calls) == sorted(fails.calls)


def test_a_batch_that_fails_again_keeps_its_notice_and_the_others_go_on() -> None:
    stream, found = given_up()
    notices, function = FakeNotices(found, with_payload), FakeFunction(poison(3))
    tally = redriven(stream, notices, function)
    assert function.calls == BATCHES
    assert list(notices.held) == [found[1].notice_id]
    assert tally is not None
    assert tally.result().state is OperationState.FAILED
    assert (
        tally.result().result == "4 batches settled (8 records); 1 failed again and stays: ValueError: poison"
    )


@pytest.mark.parametrize("digits", [1, 21])
def test_records_whose_time_is_wrong_are_found_by_their_numbers(digits: int) -> None:
    """A source may not tell when a record arrived. Then a notice has the time of its read."""
    stream, found = given_up()
    asked: list[str] = []

    class ByNumber(FakeStream):
        async def cursor_at(self, shard: ShardId, sequence_number: str) -> Cursor:
            asked.append(sequence_number)
            return await super().cursor_at(shard, sequence_number)

    def late(notice: Notice) -> bytes:
        document = json.loads(notice.document)
        info = document["KinesisBatchInfo"]
        info["approximateArrivalOfFirstRecord"] = "2099-01-01T00:00:00.000Z"
        info["startSequenceNumber"] = info["startSequenceNumber"].zfill(digits)
        return json.dumps(document).encode()

    notices, function = FakeNotices(found, late), FakeFunction()
    redriven(ByNumber(held=stream.held), notices, function)
    assert (function.calls, notices.held) == (BATCHES, {})
    assert asked == ["1".zfill(digits)]


def test_what_the_stream_has_no_longer_stays_and_is_reported() -> None:
    stream, found = given_up()
    notices, function = FakeNotices(found, lambda notice: notice.document), FakeFunction()
    del stream.held[SHARD][:3]
    tally = redriven(stream, notices, function)
    assert function.calls == [[5, 6], [7, 8], [9, 10]]
    assert list(notices.held) == [each.notice_id for each in found[:2]]
    assert tally is not None
    assert (tally.refused, tally.failed) == (2, 0)
    assert "the stream has 0 of its 2 records" in tally.result().result


def test_a_function_that_refuses_calls_is_called_until_it_takes_them() -> None:
    stream, found = given_up()
    answers: list[Outcome] = [Throttled("busy"), Throttled("busy", 7.0), Succeeded(b"")]
    function = FakeFunction(lambda _: answers.pop(0) if answers else Succeeded(b""))
    notices = FakeNotices(found[:1], with_payload)
    assert redriven(stream, notices, function) is not None
    assert function.times == [0.0, 0.5, 7.5]
    assert notices.held == {}


def test_a_place_in_trouble_is_asked_again_and_given_up_after_a_while() -> None:
    stream, found = given_up()
    notices, function = FakeNotices(found[:1], with_payload), FakeFunction()
    notices.trouble = [ServiceUnavailable("down")] * (TRIES_MAX - 1)
    assert redriven(stream, notices, function) is not None
    notices.opened_again()
    notices.trouble = [ServiceUnavailable("down")] * TRIES_MAX
    with pytest.raises(ServiceUnavailable):
        redriven(stream, notices, function)


def test_a_limit_and_a_rate_are_kept() -> None:
    stream, found = given_up()
    notices, function = FakeNotices(found, with_payload), FakeFunction()
    redriven(stream, notices, function, limit=3, per_s=0.5)
    assert function.times == [0.0, 2.0, 4.0]
    assert len(notices.held) == 2


def test_nothing_is_called_while_the_mapping_is_paused() -> None:
    stream, found = given_up()
    notices, function = FakeNotices(found, with_payload), FakeFunction()

    def held() -> bool:
        return asyncio.get_running_loop().time() < 30

    redriven(stream, notices, function, held=held)
    assert function.times == [30.0] * 5


@pytest.mark.parametrize("slow", ["notices", "stream", "slot"])
def test_a_pause_that_begins_before_a_call_holds_it(slow: str) -> None:
    """The mapping is paused from the first to the thirtieth second. Two seconds pass between the look at the pauses and the call."""
    _, found = given_up()

    class SlowNotices(FakeNotices):
        async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
            await asyncio.sleep(2.0 if slow == "notices" else 0.0)
            return await super().read(notices_max=notices_max)

    class SlowStream(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            await asyncio.sleep(2.0 if slow == "stream" else 0.0)
            return await super().read(shard, cursor, records_max=records_max)

    stream, function = SlowStream(), FakeFunction()
    stream.put(*records(*NUMBERS))
    notices = SlowNotices(found[:1], lambda notice: notice.document)

    async def main() -> None:
        parts, clock = stream_parts(stream, function, plan=GIVING_UP, max_concurrency=1), virtual_clock()
        redrive = Redrive(
            StreamRedrive(parts),
            notices,
            Stop(),
            clock=clock,
            wait_s=lambda _: 0.5,
            held=lambda: 1.0 <= asyncio.get_running_loop().time() < 30.0,
            changed=unseen,
            waits=unsaid,
        )
        if slow == "slot":
            await parts.function.slots.acquire()
            asyncio.get_running_loop().call_later(2.0, parts.function.slots.release)
        await redrive.run(limit=None, per_s=None)

    run_virtual(main())
    assert function.calls == BATCHES[:1]
    assert function.times[0] >= 30.0
    assert notices.held == {}


def test_who_goes_on_after_a_stop_calls_what_is_left() -> None:
    stream, found = given_up()
    notices, function = FakeNotices(found, with_payload), FakeFunction()
    assert redriven(stream, notices, function, stop_after=2) is None
    assert len(notices.held) == 3
    notices.opened_again()
    redriven(stream, notices, function)
    assert function.calls == BATCHES
    assert notices.held == {}


def test_a_look_says_what_would_be_called_and_calls_nothing() -> None:
    stream, found = given_up()
    notices, function = FakeNotices(found, with_payload), FakeFunction()
    notices.held["odd"] = StoredNotice("odd", b"[]")

    async def main() -> tuple[RedriveTally, list[str]]:
        redrive = Redrive(
            StreamRedrive(stream_parts(stream, function, plan=GIVING_UP)),
            notices,
            Stop(),
            clock=virtual_clock(),
            wait_s=lambda _: 0.0,
            held=lambda: False,
            changed=unseen,
            waits=unsaid,
        )
        return await redrive.look(limit=None)

    tally, lines = run_virtual(main())
    assert (tally.settled, tally.refused) == (5, 1)
    assert lines[0] == f"2 records of shard {SHARD}, from 1 to 2: the event in the notice"
    assert lines[-1] == "it is no JSON object"
    assert (function.calls, len(notices.held)) == ([], 6)


def test_a_shard_that_was_removed_is_reported() -> None:
    _, found = given_up()

    class Trimmed(FakeStream):
        async def cursor(self, shard, position):  # type: ignore[no-untyped-def]
            raise PositionTrimmed("gone")

    notices = FakeNotices(found[:1], lambda notice: notice.document)
    tally = redriven(Trimmed(), notices, FakeFunction())
    assert tally is not None
    assert "does not have shard" in tally.result().result


def test_a_lost_record_is_not_settled_by_one_of_another_lane() -> None:
    plan = replace(GIVING_UP, stream=StreamPolicy(lanes=2))
    stream, destination = FakeStream(), FakeDestination()
    keys = {1: "a", 2: "d", 3: "a"}
    stream.put(*(each for n, key in keys.items() for each in records(n, key=key)))
    fails = FakeFunction(lambda _: FunctionError("ValueError", "no"))
    run_mapping(lambda: stream_parts(stream, fails, plan=plan, destination=destination), for_s=5)
    assert sorted(fails.calls) == [[1, 3], [2]]
    found = [each for each in destination.notices if b'"batchSize":2' in each.document]
    notices, function = FakeNotices(found, lambda notice: notice.document), FakeFunction()
    del stream.held[SHARD][0]
    tally = redriven(stream, notices, function, plan=plan)
    assert function.calls == []
    assert len(notices.held) == 1
    assert tally is not None
    assert (tally.settled, tally.refused) == (0, 1)


def test_a_range_with_far_more_records_than_its_batch_is_given_up_soon() -> None:
    """The filters of the mapping may drop less than when the batch was given up, and a notice may be of anybody."""
    stream, found = given_up()
    stream.put(*records(*range(11, 200_001)))

    def wide(notice: Notice) -> bytes:
        document = json.loads(notice.document)
        document["KinesisBatchInfo"]["endSequenceNumber"] = "200000"
        return json.dumps(document).encode()

    notices, function = FakeNotices(found[:1], wide), FakeFunction()
    before = len(stream.reads)
    tally = redriven(stream, notices, function)
    assert function.calls == []
    assert tally is not None
    assert tally.refused == 1
    assert len(stream.reads) - before <= 20


def test_a_stop_ends_the_read_of_a_long_range() -> None:
    stream, found = given_up()
    stream.put(*records(*range(11, 50_001)))
    stop = Stop()

    class Stopping(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            stop.request(Reason.REQUESTED)
            return await super().read(shard, cursor, records_max=records_max)

    def wide(notice: Notice) -> bytes:
        document = json.loads(notice.document)
        document["KinesisBatchInfo"]["endSequenceNumber"] = "50000"
        document["KinesisBatchInfo"]["batchSize"] = 10_000
        return json.dumps(document).encode()

    notices = FakeNotices(found[:1], wide)
    source = Stopping(held=stream.held)

    async def main() -> None:
        redrive = StreamRedrive(stream_parts(source, FakeFunction(), plan=GIVING_UP))
        assert await redrive.again(next(iter(notices.held.values())), notices, stop) is None

    run_virtual(main())
    assert len(source.reads) <= 2
