"""A redrive calls the function with messages of a dead-letter queue as if they came from the mapping's own queue."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from poller.domain.errors import InvalidConfiguration, ServiceUnavailable
from poller.domain.invocations import StoredNotice
from poller.domain.operations import OperationState
from poller.domain.plan import SourceKind
from poller.domain.policies import RetryPolicy
from poller.domain.records import Message, QueueFacts, Undone
from poller.rules.operations.redriving import RedriveTally
from poller.runtime.operations.long import redriving as long_redriving
from poller.runtime.operations.long.redriving import NoticeKept, Redrive
from poller.runtime.queues.in_flight import RELEASE_S_MAX
from poller.runtime.queues.operations import redriving as queue_redriving
from poller.runtime.queues.operations.redriving import DeadLetters, opened_letters
from poller.runtime.stopping import Stop
from tests.hostile_texts import HOSTILE, fit
from tests.runtime.queues.queue_fakes import (
    FIFO,
    Handler,
    Service,
    failing,
    fifo,
    function_of,
    parts,
    plan,
    reporting,
    seconds,
    standard,
    throttled_until,
)
from tests.simulation.services.queues import FakeQueue
from tests.virtual import run_virtual, virtual_clock

LETTERS = "arn:aws:sqs:eu-west-1:111122223333:orders-dead"


async def unsaid(_why: str) -> None:
    """Nobody reads what it waits for."""


async def unseen(_tally: RedriveTally) -> None:
    """Nobody looks how far it is."""


async def nothing() -> None:
    """Nothing happened before."""


def redriven(
    letters: Service,
    handler: Handler,
    *,
    own: Service,
    limit: int | None = None,
    hold_s: int = 60,
    retry_s: float = 0.5,
    before: Callable[[], Awaitable[None]] = nothing,
) -> RedriveTally:
    """Redrives a dead-letter queue once, after something that happened before."""

    def opener(
        kind: str, name: str, settings: Mapping[str, Any], *, look: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        assert (kind, name, settings, look) == ("sources", SourceKind.SQS, {"arn": LETTERS}, False)
        return nullcontext(letters)

    async def main() -> RedriveTally:
        own.queue.facts = replace(own.queue.facts, dead_letter_arn=LETTERS)
        reporting_plan = plan(own, retry=RetryPolicy(report_failures=True))
        context = parts(own, function_of(handler), reporting_plan)
        await before()
        async with opened_letters(context, LETTERS, opener, hold_s=hold_s, look=False) as place:
            redrive = Redrive(
                place.redrivable,
                place.notices,
                Stop(),
                clock=virtual_clock(),
                wait_s=lambda _: retry_s,
                held=lambda: False,
                changed=unseen,
                waits=unsaid,
                hold_s=60,
            )
            tally = await redrive.run(limit=limit, per_s=None)
        assert tally is not None
        return tally

    return run_virtual(main())


def test_messages_are_called_one_at_a_time_with_the_arn_of_the_mappings_queue_and_deleted() -> None:
    letters, handler = standard(), Handler()
    letters.send(*range(1, 26))
    tally = redriven(letters, handler, own=standard())
    assert sorted(handler.calls) == [[number] for number in range(1, 26)]
    assert letters.left == []
    assert tally.result().result == "25 batches settled (25 records)"


@pytest.mark.parametrize("answer", [failing(2), reporting(2)])
def test_a_message_that_fails_again_stays_and_is_visible_afterwards(answer: Any) -> None:
    letters = standard()
    letters.send(1, 2, 3)
    tally = redriven(letters, Handler(answer=answer), own=standard())
    assert letters.left == [2]
    assert tally.result().state is OperationState.FAILED
    again = Handler()
    redriven(letters, again, own=standard())
    assert again.calls == [[2]]


def test_in_a_fifo_queue_what_is_behind_a_failed_message_of_its_group_stays() -> None:
    letters = fifo()
    letters.send(1, 2, 3, group="a")
    letters.send(11, 12, group="b")
    tally = redriven(letters, Handler(answer=failing(2)), own=fifo())
    assert letters.left == [2, 3]
    assert (tally.settled, tally.failed, tally.refused) == (3, 1, 0)
    again = Handler()
    redriven(letters, again, own=fifo())
    assert again.calls == [[2], [3]]


def test_a_message_that_is_not_deleted_is_tried_again_and_then_said_to_stay() -> None:
    letters, handler = standard(), Handler()
    letters.send(1)
    letters.refuse_deletes = [False, False]
    tally = redriven(letters, handler, own=standard())
    assert (handler.calls, letters.left, tally.settled) == ([[1]], [], 1)
    letters.send(2)
    letters.refuse_deletes = [False] * 100
    with pytest.raises(NoticeKept, match="its batch succeeded, but its notice cannot be removed: refused"):
        redriven(letters, handler, own=standard())
    assert letters.left == [2]


@pytest.mark.parametrize("made", [standard, fifo])
def test_messages_that_a_killed_worker_held_are_waited_for(made: Callable[[], Service]) -> None:
    letters, handler = made(), Handler()
    letters.send(1, 2, 3, group="a" if made is fifo else None)

    async def killed() -> None:
        (message,) = await letters.receive(messages_max=1, wait_s=0)
        await letters.extend([message.receipt], visibility_s=45)

    tally = redriven(letters, handler, own=made(), before=killed)
    assert sorted(handler.calls) == [[1], [2], [3]]
    assert letters.left == []
    assert tally.result().result == "3 batches settled (3 records)"


def test_a_message_that_comes_back_at_any_moment_is_not_missed() -> None:
    """Also between a read that finds nothing and the count of what others hold back."""
    missed = []
    for tenths in range(60):
        letters, handler = standard(), Handler()
        letters.latency_s = 0.3
        letters.send(1, 2)

        async def killed(letters: Service = letters, wait_s: float = tenths / 10) -> None:
            (message,) = await letters.receive(messages_max=1, wait_s=0)
            await letters.extend([message.receipt], visibility_s=8)
            await asyncio.sleep(wait_s)

        tally = redriven(letters, handler, own=standard(), before=killed)
        if letters.left or tally.settled != 2:
            missed.append(tenths)
    assert missed == []


def test_a_message_that_another_reader_takes_for_a_while_is_not_missed() -> None:
    """Also between the count of what others hold back and the read that finds nothing."""
    missed = []
    for twentieths in range(80):
        letters, handler = standard(), Handler()
        letters.latency_s = 0.1
        letters.send(1, 2)
        others: list[asyncio.Task[None]] = []

        async def meanwhile(
            letters: Service = letters,
            others: list[asyncio.Task[None]] = others,
            wait_s: float = twentieths / 20,
        ) -> None:
            (message,) = await letters.receive(messages_max=1, wait_s=0)
            await letters.extend([message.receipt], visibility_s=6)

            async def taken_again() -> None:
                await asyncio.sleep(6.05)
                for each in await letters.receive(messages_max=1, wait_s=0):
                    await letters.extend([each.receipt], visibility_s=6)

            others.append(asyncio.create_task(taken_again()))
            await asyncio.sleep(wait_s)

        tally = redriven(letters, handler, own=standard(), before=meanwhile)
        if letters.left or tally.settled != 2:
            missed.append(twentieths)
    assert missed == []


def test_messages_that_somebody_else_keeps_are_said_to_stay() -> None:
    letters, handler = standard(), Handler()
    letters.send(1, 2)

    async def kept() -> None:
        (message,) = await letters.receive(messages_max=1, wait_s=0)
        await letters.extend([message.receipt], visibility_s=1_000)

    tally = redriven(letters, handler, own=standard(), before=kept)
    assert (tally.result().state, tally.result().result) == (
        OperationState.FAILED,
        "1 batch settled (1 record); 1 could not be called and stays: another reader holds it back",
    )


def test_what_somebody_else_keeps_is_said_to_stay_also_when_what_was_left_is_visible_again() -> None:
    """Also when that happens between a read that finds nothing and the count of what others hold back."""
    unsaid_at = []
    for tenths in range(40):
        letters = standard()
        letters.latency_s = 0.3
        letters.send(1, 2)

        async def kept(letters: Service = letters) -> None:
            (message,) = await letters.receive(messages_max=1, wait_s=0)
            await letters.extend([message.receipt], visibility_s=1_000)

        handler = Handler(takes_s=tenths / 10, answer=failing(1, 2))
        tally = redriven(letters, handler, own=standard(), before=kept, hold_s=7)
        if dict(tally.reasons).get("another reader holds it back") != 1:
            unsaid_at.append(tenths)
    assert unsaid_at == []


def test_many_messages_that_stay_do_not_hide_the_others_when_they_come_again() -> None:
    """They are hidden for so long only. Each is hidden again when it comes, until others come."""
    letters = standard()
    letters.send(*range(1, 41))
    handler = Handler(takes_s=2, answer=failing(*range(1, 36)))
    tally = redriven(letters, handler, own=standard(), hold_s=10)
    assert sorted(handler.calls) == [[number] for number in range(1, 41)]
    assert (tally.settled, tally.failed) == (5, 35)


@pytest.mark.parametrize(
    ("place", "there", "said"),
    [
        (FIFO, LETTERS, "own queue; write its dead-letter queue"),
        (f"{LETTERS}-of-another", LETTERS, f"is not the dead-letter queue of .*; write {LETTERS}"),
        (LETTERS, None, "is not the dead-letter queue of .*; it has none"),
    ],
    ids=["the mapping's own", "of another queue", "the queue has none"],
)
def test_a_queue_that_is_not_the_dead_letter_queue_of_the_mappings_queue_is_not_touched(
    place: str, there: str | None, said: str
) -> None:
    """The function could accept messages of others, which would then be deleted."""

    def opener(*_: object, **__: object) -> AbstractAsyncContextManager[Any]:
        raise AssertionError("it was opened")

    async def main() -> None:
        own = fifo()
        own.queue.facts = replace(own.queue.facts, dead_letter_arn=there)
        context = parts(own, function_of(Handler()), plan(own))
        with pytest.raises(InvalidConfiguration, match=said):
            async with opened_letters(context, place, opener, hold_s=60, look=False):
                pass

    run_virtual(main())


def test_a_redrive_ends_soon_although_the_queue_does_not_answer() -> None:
    async def main() -> float:
        letters = standard()
        letters.send(1)
        context = parts(standard(), function_of(Handler()), plan(standard()))
        async with opened_letters(
            context, LETTERS, lambda *_, **__: nullcontext(letters), hold_s=60, look=False
        ) as place:
            await place.notices.read(notices_max=1)
            letters.hangs = [1_000.0]
            began = seconds()
        return seconds() - began

    assert run_virtual(main()) == RELEASE_S_MAX


@pytest.mark.parametrize("made", [standard, fifo])
def test_a_message_of_another_queue_in_a_shared_dead_letter_queue_stays(made: Callable[[], Service]) -> None:
    """Several queues may have one dead-letter queue. SQS notes on each message from which of them it came."""
    own, letters, handler = made(), made(), Handler()
    letters.send(1, group="a" if made is fifo else None)
    letters.send(2, group="b" if made is fifo else None)
    other = f"{plan(own).source_arn}-of-another"

    class Shared(Service):
        async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
            found = await super().receive(messages_max=messages_max, wait_s=wait_s)
            return [_from(each, other) if json.loads(each.body or "")["n"] == 2 else each for each in found]

    shared = Shared(letters.queue)
    tally = redriven(shared, handler, own=own)
    assert handler.calls == [[1]]
    assert letters.left == [2]
    assert (tally.settled, tally.refused) == (1, 1)


def _from(message: Message, source_arn: str) -> Message:
    """The message with what SQS notes when it moves it."""
    attributes = {**message.attributes, "DeadLetterQueueSourceArn": source_arn}
    return msgspec.structs.replace(message, attributes=attributes)


HOUR_S = 3_600.0
HIDDEN_S = 60


class Hours(Service):
    """SQS hides a message for twelve hours in all, from its receive on. Then it refuses to hide it any longer."""

    hidden_s_max = 12 * HOUR_S

    def __init__(self, queue: FakeQueue) -> None:
        super().__init__(queue)
        self.since: dict[str, float] = {}

    async def extend(self, receipts: Sequence[str], *, visibility_s: int | Sequence[int]) -> Sequence[Undone]:
        for receipt in receipts:
            since = self.since.setdefault(receipt, seconds())
            if seconds() + HIDDEN_S - since > self.hidden_s_max:
                return [Undone(each, "InvalidParameterValue", lapsed=True) for each in receipts]
        return await super().extend(receipts, visibility_s=visibility_s)


@pytest.mark.parametrize("made", [standard, fifo])
@pytest.mark.parametrize("wait_s", [30.0, 59.0, 61.0, 200.0, 11 * HOUR_S, 12 * HOUR_S, 30 * HOUR_S])
@pytest.mark.parametrize("limit", [None, 1])
def test_a_message_that_waits_for_the_function_stays_held_and_is_called_once(
    made: Callable[[], Service], wait_s: float, limit: int | None
) -> None:
    """However long: its hold is renewed, and what SQS does not hide any longer is received again before it is called."""
    letters, handler = Hours(made().queue), Handler(answer=throttled_until(wait_s))
    letters.send(1, 2, group="a" if made is fifo else None)
    tally = redriven(letters, handler, own=made(), limit=limit, hold_s=HIDDEN_S, retry_s=wait_s / 9)
    assert len(handler.done) == len(set(handler.done)) == (2 if limit is None else 1)
    assert letters.left == sorted({1, 2} - set(handler.done))
    assert tally.result().result == (
        "2 batches settled (2 records)" if limit is None else "1 batch settled (1 record)"
    )


@pytest.mark.parametrize("made", [standard, fifo])
@pytest.mark.parametrize("errors", range(0, 12, 3))
def test_a_message_that_could_not_be_held_is_received_again_before_it_is_called(
    made: Callable[[], Service], errors: int
) -> None:
    letters, handler = made(), Handler(answer=throttled_until(300.0))
    letters.send(1, group="a" if made is fifo else None)

    async def broken() -> None:
        async def later() -> None:
            await asyncio.sleep(30.0)
            letters.trouble["extend"] = [ServiceUnavailable("down") for _ in range(errors)]

        tasks.append(asyncio.create_task(later()))

    tasks: list[asyncio.Task[None]] = []
    tally = redriven(letters, handler, own=made(), before=broken)
    assert (handler.done, letters.left, tally.settled) == ([1], [], 1)


def test_a_message_whose_time_is_over_when_it_is_to_be_deleted_is_not_settled() -> None:
    letters, handler = fifo(), Handler(takes_s=25.0)
    letters.send(1, group="a")
    with pytest.raises(NoticeKept, match="its batch succeeded, but its notice cannot be removed"):
        redriven(letters, handler, own=fifo(), hold_s=10)
    assert letters.left == [1]


def test_a_queue_of_which_others_hold_back_any_number_is_counted_at_once() -> None:
    class Crowded(Service):
        async def describe(self) -> QueueFacts:
            return replace(await super().describe(), hidden=10**9)

    tally = redriven(Crowded(standard().queue), Handler(), own=standard())
    assert (tally.refused, dict(tally.reasons)) == (10**9, {"another reader holds it back": 10**9})


@pytest.mark.parametrize("made", [standard, fifo])
def test_a_redrive_goes_on_behind_any_number_of_messages_that_stay(
    made: Callable[[], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that brings only those is not the end, and they are hidden for longer each time."""
    monkeypatch.setattr(queue_redriving, "RECEIVES_MAX", 3)
    letters = made()
    for number in range(1, 121):
        letters.send(number, group=f"g{number}" if made is fifo else None)
    letters.latency_s = 0.1
    handler = Handler(answer=failing(*range(1, 116)))
    tally = redriven(letters, handler, own=made(), hold_s=3)
    assert sorted(handler.calls) == [[number] for number in range(1, 121)]
    assert (tally.settled, tally.failed) == (5, 115)


def test_a_redrive_ends_and_says_so_when_very_many_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_redriving, "STAY_MAX", 10)
    letters, handler = standard(), Handler(answer=failing(*range(1, 31)))
    letters.send(*range(1, 31))
    tally = redriven(letters, handler, own=standard())
    assert len(handler.calls) == 10
    assert tally.result().result == (
        "0 batches settled (0 records); 10 failed again and stay: ValueError: bad (10); no more were read, because so many stay"
    )


def test_a_dry_run_keeps_few_lines_and_no_contents_however_much_it_may_read() -> None:
    async def main() -> None:
        letters, own = standard(), standard()
        letters.send(*range(1, 121))
        own.queue.facts = replace(own.queue.facts, dead_letter_arn=LETTERS)
        context = parts(own, function_of(Handler()), plan(own))
        async with opened_letters(
            context, LETTERS, lambda *_, **__: nullcontext(letters), hold_s=60, look=True
        ) as place:
            redrive = Redrive(
                place.redrivable,
                place.notices,
                Stop(),
                clock=virtual_clock(),
                wait_s=lambda _: 0.5,
                held=lambda: False,
                changed=unseen,
                waits=unsaid,
            )
            tally, lines = await redrive.look(limit=10**9)
            assert (tally.settled, len(lines)) == (120, long_redriving.LINES_MAX)
            assert isinstance(place.notices, DeadLetters)
            with pytest.raises(KeyError):
                place.notices.message(StoredNotice("message-000001", b""))

    run_virtual(main())


class Named(Service):
    """A queue of another service than AWS, whose messages have any ids and groups."""

    text = ""

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """As the fake."""
        found = await super().receive(messages_max=messages_max, wait_s=wait_s)
        return [msgspec.structs.replace(each, message_id=self.text, group=self.text) for each in found]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_dry_run_shows_ids_and_groups_in_a_line_that_can_be_stored_and_printed(text: str) -> None:
    async def main() -> None:
        letters, own = Named(fifo().queue), fifo()
        letters.text = text
        letters.send(1, group="a")
        own.queue.facts = replace(own.queue.facts, dead_letter_arn=LETTERS)
        context = parts(own, function_of(Handler()), plan(own))
        async with opened_letters(
            context, LETTERS, lambda *_, **__: nullcontext(letters), hold_s=60, look=True
        ) as place:
            (notice,) = await place.notices.read(notices_max=1)
            line = place.redrivable.look(notice)
        assert fit(line)
        assert len(line) < 2 * queue_redriving.NAME_CHARS_MAX + 100

    run_virtual(main())
