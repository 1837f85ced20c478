"""Asynchronous calls in a DynamoDB table: ends in the middle, lost answers, what is left and swept, damaged rows, and what a look costs."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from adapters.stores.dynamodb.call_items import FUNCTIONS, calls_of, due_key, home_key
from adapters.stores.dynamodb.call_parts import LEFT_S, LEFTOVERS, SWEEP_S, SWEPT_MAX
from adapters.stores.dynamodb.call_rows import COUNT_S, KNOWN_S, LOOK_PAGES_MAX, DynamoDbCallQueue
from adapters.stores.dynamodb.calls import Table
from adapters.stores.dynamodb.table import key, ready
from poller.domain.errors import PortError, RowChanged, ServiceThrottled, ServiceUnavailable
from poller.domain.functions.queued_calls import CallAnswer, CallEnd, CallId, EndedCall, QueuedCall
from poller.domain.records import Epoch, WorkerId
from tests.adapters.stores.dynamo import TABLES, Meddler, lost_answer
from tests.conftest import fresh_account, give_credentials
from tests.contracts.worlds import EmulatorWorld
from tests.emulators import Emulator

ANN, BOB = WorkerId("ann"), WorkerId("bob")
ORDERS = "orders"
NOW = Epoch(1_700_000_000.25)
LATER = Epoch(NOW + 60)
LONG, SHORT = b"0123456789" * 4, b"{}"
ROOM, INLINE = 30, 32
"""Sizes at which a few bytes need parts."""


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Lab:
    """One table, and queues on it that share a clock. Each queue stands for a process of its own."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name
        self.clock = Clock()

    def queue(self, client: Any = None, *, room: int = ROOM, inline: int = INLINE) -> DynamoDbCallQueue:
        """A queue of a new process."""
        table = Table(client or self.client, self.name, call_timeout_s=10)
        return DynamoDbCallQueue(table, room=room, inline=inline, now=self.clock)

    async def items(self) -> list[dict[str, Any]]:
        """Everything in the table but the names of functions."""
        found = (await self.client.scan(TableName=self.name, ConsistentRead=True))["Items"]
        return [item for item in found if item["pk"]["S"] != FUNCTIONS]

    async def swept(self) -> None:
        """Sweeps a long time later."""
        self.clock.now += LEFT_S + SWEEP_S
        await self.queue().backlogs()


@pytest.fixture(scope="module")
def world() -> Iterator[EmulatorWorld]:
    """One loop, account and client for all tests."""
    account = fresh_account()
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        give_credentials(patch, account)
        made = EmulatorWorld(runner, account)
        yield made
        made.close()


type InLab = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def in_lab(world: EmulatorWorld, ministack: Emulator) -> InLab:
    """Runs a scenario on a table of its own."""

    def run(scenario: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            client, name = await world.client(ministack.url, "dynamodb"), f"calls-of-{next(TABLES)}"
            await ready(client, name, create=True)
            await scenario(Lab(client, name))

        world.run(whole())

    return run


class Mortal:
    """A client whose call number `at` goes wrong, `before` it is sent or `after` it took effect; with `dead` all later ones, too."""

    def __init__(self, client: Any, *, at: int, stage: str, dead: bool) -> None:
        self._client = client
        self._left = at
        self._stage = stage
        self._dead = dead
        self.hit = False

    def __getattr__(self, operation: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(**arguments: Any) -> Any:
            if self.hit and self._dead:
                raise lost_answer()
            hit = self._left == 0
            self._left -= 1
            self.hit = self.hit or hit
            if hit and self._stage == "before":
                raise lost_answer()
            answer = await getattr(self._client, operation)(**arguments)
            if hit:
                raise lost_answer()
            return answer

        return call


def asked(name: str = "one", payload: bytes = LONG, due: float = NOW) -> QueuedCall:
    """A new call."""
    return QueuedCall(
        call=CallId(name),
        function=ORDERS,
        arn="arn:aws:lambda:eu-west-1:111122223333:function:orders",
        payload=payload,
        accepted=NOW,
        due=Epoch(due),
    )


def over(call: QueuedCall, answer: bytes) -> QueuedCall:
    """The call as one that has ended."""
    return replace(call, ended=EndedCall(CallEnd.AGE, NOW, CallAnswer(payload=answer), ("arn:x",)))


async def claim(
    queue: DynamoDbCallQueue, owner: WorkerId = ANN, *, held: Sequence[str] = (), calls_max: int = 10, now: float = NOW
) -> list[QueuedCall]:  # fmt: skip
    """What `owner` claims."""
    found = await queue.claim(
        ORDERS,
        now=Epoch(now),
        owner=owner,
        gone=(),
        held=[CallId(each) for each in held],
        calls_max=calls_max,
    )
    return list(found)


async def prepared(lab: Lab, verb: str, payload: bytes) -> tuple[QueuedCall, QueuedCall | None]:
    """What a verb begins with, and what is stored once it has succeeded, with its payload; None: nothing."""
    new = asked(payload=payload)
    if verb == "put":
        return new, new
    await lab.queue().put(new)
    if verb == "claim":
        return new, replace(new, owner=ANN, revision=1)
    (mine,) = await claim(lab.queue())
    if verb == "replace":
        wanted = replace(mine, attempts=1, owner=None)
        return wanted, replace(wanted, revision=2)
    mine = await lab.queue().replace(over(mine, LONG + b"1"))
    if verb == "end otherwise":
        wanted = replace(over(mine, LONG + b"2"), due=LATER, owner=None)
        return wanted, replace(wanted, revision=3)
    return mine, None


async def carried_out(queue: DynamoDbCallQueue, verb: str, call: QueuedCall) -> Any:
    """Carries out a verb."""
    match verb:
        case "put":
            return await queue.put(call)
        case "claim":
            return await claim(queue)
        case "remove":
            return await queue.remove(call)
        case _:
            return await queue.replace(call)


@pytest.mark.parametrize(
    ("stage", "dead"),
    [("before", True), ("after", True), ("after", False)],
    ids=["ends before", "ends after", "loses"],
)
@pytest.mark.parametrize(
    ("verb", "payload"),
    [
        ("put", SHORT),
        ("put", LONG),
        ("claim", LONG),
        ("replace", SHORT),
        ("end otherwise", LONG),
        ("remove", LONG),
    ],
)
def test_a_verb_that_is_interrupted_anywhere_may_be_repeated_and_leaves_nothing(
    verb: str, payload: bytes, stage: str, dead: bool, in_lab: InLab
) -> None:
    async def interrupted(lab: Lab, at: int) -> bool:
        """Interrupts the verb at one of its calls, repeats it, and checks what is there; returns whether it has so many calls."""
        call, expected = await prepared(lab, verb, payload)
        mortal = Mortal(lab.client, at=at, stage=stage, dead=dead)
        try:
            await carried_out(lab.queue(mortal), verb, call)
        except PortError:
            assert mortal.hit
        there = [each.call for each in await lab.queue().calls(ORDERS, calls_max=5)]
        assert there == ["one"] or verb in ("put", "remove")
        await carried_out(lab.queue(), verb, call)
        found = await claim(lab.queue(), now=LATER)
        if expected is None:
            assert found == []
        else:
            (kept,) = found
            stored = replace(
                kept, owner=expected.owner, takeovers=expected.takeovers, revision=expected.revision
            )
            assert stored == expected
            assert kept.revision - expected.revision <= 2
            await lab.queue().remove(kept)
        await lab.swept()
        assert await lab.items() == []
        return mortal.hit

    async def scenario(lab: Lab) -> None:
        at = 0
        while await interrupted(lab, at):
            at += 1
        assert at >= 2

    in_lab(scenario)


def test_parts_are_removed_at_once_when_nothing_goes_wrong(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        queue = lab.queue()
        await queue.put(asked())
        assert len(await lab.items()) == 2 + 2
        (mine,) = await claim(queue)
        first = await queue.replace(over(mine, LONG + b"first"))
        assert len(await lab.items()) == 2 + 2 + 2
        second = await queue.replace(over(first, LONG + b"second"))
        assert len(await lab.items()) == 2 + 2 + 2
        third = await queue.replace(over(second, SHORT))
        assert len(await lab.items()) == 2 + 2
        await queue.remove(third)
        assert await lab.items() == []

    in_lab(scenario)


def test_an_answer_that_stays_is_not_written_again(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        meddler = Meddler(lab.client)
        queue = lab.queue(meddler)
        await queue.put(asked())
        (mine,) = await claim(queue)
        first = await queue.replace(over(mine, LONG))
        meddler.calls.clear()
        second = await queue.replace(replace(first, attempts=2))
        assert meddler.calls == ["get_item", "get_item", "put_item"]
        await queue.replace(replace(second, due=LATER, owner=None))
        (again,) = await claim(queue, now=LATER)
        assert again.ended is not None
        assert again.ended.answer.payload == LONG

    in_lab(scenario)


def test_parts_whose_mark_was_swept_are_never_named(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        class Slow(Meddler):
            """A process that stands still for hours before its transaction."""

            async def transact_write_items(self, **arguments: Any) -> Any:
                if not self.calls.count("slept"):
                    self.calls.append("slept")
                    await lab.swept()
                return await self.client.transact_write_items(**arguments)

        slow = lab.queue(Slow(lab.client))
        with pytest.raises(ServiceThrottled):
            await slow.put(asked())
        assert await lab.items() == []
        await slow.put(asked())
        (mine,) = await claim(lab.queue())
        assert mine.payload == LONG
        ended = over(mine, LONG)
        # A replacement writes its parts again by itself.
        await lab.queue(Slow(lab.client)).replace(ended)
        (again,) = await claim(lab.queue())
        assert again == replace(ended, takeovers=1, revision=3)

    in_lab(scenario)


def test_a_sweep_takes_a_few_old_marks_at_a_time_and_goes_on_where_another_one_ended(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        for number in range(SWEPT_MAX + 2):
            mortal = Meddler(lab.client)
            mortal.before["transact_write_items"] = [lost_answer()]
            with pytest.raises(ServiceUnavailable):
                await lab.queue(mortal).put(asked(f"call-{number}", LONG[:40]))

        async def marks() -> int:
            return sum(item["pk"]["S"] == LEFTOVERS for item in await lab.items())

        queue = lab.queue()
        lab.clock.now += LEFT_S - 1
        await queue.backlogs()
        assert await marks() == SWEPT_MAX + 2
        lab.clock.now += 2
        await queue.backlogs()
        assert await marks() == SWEPT_MAX + 2, "it has swept a moment before"
        # This process ends in its sweep: `backlogs` itself does not fail.
        dying = Mortal(lab.client, at=6, stage="after", dead=True)
        assert await lab.queue(dying).backlogs() == []
        assert dying.hit
        lab.clock.now += SWEEP_S
        await queue.backlogs()
        assert 0 < await marks() <= 2
        lab.clock.now += SWEEP_S
        await queue.backlogs()
        assert await lab.items() == []

    in_lab(scenario)


def test_a_claim_reads_only_as_many_rows_as_it_may_need(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        meddler = Meddler(lab.client)
        queue = lab.queue(meddler, inline=16 * 1024)
        for number in range(30):
            await queue.put(asked(f"call-{number:02}"))
        meddler.calls.clear()
        limits: list[int] = []
        query = lab.client.query

        async def watched(**arguments: Any) -> Any:
            answer = await query(**arguments)
            limits.append(len(answer["Items"]))
            return answer

        meddler.client = type("Watched", (), {"query": staticmethod(watched), "__getattr__": lambda _, name: getattr(lab.client, name)})()  # fmt: skip
        assert len(await claim(queue, calls_max=2)) == 2
        assert limits == [2]
        assert sorted(meddler.calls) == ["get_item", "get_item", "query", "update_item", "update_item"]
        limits.clear()
        assert len(await claim(queue, calls_max=1, held=["call-00", "call-01"])) == 1
        assert limits == [3]

    in_lab(scenario)


def test_a_free_call_behind_many_that_others_work_on_is_found(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        queue = lab.queue()
        for number in range(60):
            await queue.put(asked(f"call-{number:02}", SHORT))
        await queue.put(asked("last", SHORT))
        assert len(await claim(queue, BOB, calls_max=60)) == 60
        assert [each.call for each in await claim(queue, calls_max=1)] == ["last"]

    in_lab(scenario)


def test_a_claim_that_fails_for_some_calls_returns_the_others(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        meddler = Meddler(lab.client)
        queue = lab.queue(meddler)
        await queue.put(asked("a", SHORT))
        await queue.put(asked("b", SHORT))
        meddler.before["update_item"] = [lost_answer()]
        assert len(await claim(queue)) == 1
        meddler.before["update_item"] = [lost_answer(), lost_answer()]
        with pytest.raises(ServiceUnavailable):
            await claim(queue)
        # Only the call that was claimed before has been taken over.
        assert sorted(each.takeovers for each in await claim(queue)) == [0, 1]

    in_lab(scenario)


def test_a_call_whose_payload_cannot_be_read_just_now_is_not_taken_over(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        meddler = Meddler(lab.client)
        queue = lab.queue(meddler)
        await queue.put(asked())
        for _ in range(3):
            meddler.before["get_item"] = [lost_answer()]
            with pytest.raises(ServiceUnavailable):
                await claim(queue)
        assert [each.takeovers for each in await claim(queue)] == [0]

    in_lab(scenario)


def test_of_two_replacements_at_once_one_wins(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.queue().put(asked())
        (mine,) = await claim(lab.queue())

        async def tried(number: int) -> bool:
            try:
                await lab.queue().replace(replace(mine, due=Epoch(LATER + number), attempts=number))
            except (RowChanged, ServiceThrottled):
                return False
            return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(tried(number)) for number in range(6)]
        assert sum(task.result() for task in tasks) == 1
        assert len(await lab.queue().calls(ORDERS, calls_max=9)) == 1
        assert len(await lab.items()) == 2 + 2

    in_lab(scenario)


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        (["None", "TransactionConflict"], ServiceThrottled),
        (["ThrottlingError", "None"], ServiceThrottled),
        (["ProvisionedThroughputExceeded", "None"], ServiceThrottled),
        (["ValidationError", "None"], ServiceUnavailable),
        ([], ServiceUnavailable),
        (None, ServiceUnavailable),
    ],
    ids=str,
)
def test_a_canceled_transaction_tells_what_to_do_next(
    codes: list[str] | None, kind: type[PortError], in_lab: InLab
) -> None:
    answer: Any = {"Error": {"Code": "TransactionCanceledException", "Message": "no"}}
    if codes is not None:
        answer["CancellationReasons"] = [{"Code": code} for code in codes]

    async def scenario(lab: Lab) -> None:
        meddler = Meddler(lab.client)
        meddler.before["transact_write_items"] = [ClientError(answer, "TransactWriteItems")]
        queue = lab.queue(meddler)
        with pytest.raises(kind) as raised:
            await queue.put(asked())
        assert type(raised.value) is kind
        await queue.put(asked())
        assert len(await claim(queue)) == 1

    in_lab(scenario)


def test_the_row_of_a_function_is_written_once_a_minute(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        meddler = Meddler(lab.client)
        queue = lab.queue(meddler)
        for number, wait_s in enumerate((0.0, 1.0, KNOWN_S, 1.0)):
            lab.clock.now += wait_s
            await queue.put(asked(f"call-{number}", SHORT))
        assert meddler.calls.count("put_item") == 2

    in_lab(scenario)


def test_a_very_long_backlog_is_counted_now_and_then_and_its_beginning_at_each_look(in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        meddler = Meddler(lab.client)
        queue = lab.queue(meddler)

        async def put(numbers: range) -> None:
            for number in numbers:
                long = replace(
                    asked(f"call-{number:02}", SHORT, due=NOW + number), client_context="x" * 200_000
                )
                await queue.put(long)

        await put(range(1, 21))
        assert [each.calls for each in await queue.backlogs()] == [20]
        meddler.calls.clear()
        await put(range(21, 24))
        await queue.put(asked("first", SHORT))
        lab.clock.now += COUNT_S - 1
        (backlog,) = await queue.backlogs()
        assert (backlog.calls, backlog.next_due) in [(20, NOW), (21, NOW)]
        assert meddler.calls.count("query") == 1 + LOOK_PAGES_MAX
        lab.clock.now += 1
        # This count fails.
        meddler.before["query"] = [*[None] * (1 + LOOK_PAGES_MAX), lost_answer()]
        assert [each.calls for each in await queue.backlogs()] == [backlog.calls]
        lab.clock.now += COUNT_S
        (backlog,) = await queue.backlogs()
        assert backlog.calls == 24

    in_lab(scenario)


async def _damage(lab: Lab, damage: str) -> None:
    call = asked("bad", due=NOW - 5)
    due = key(calls_of(ORDERS), due_key(call))
    values: dict[str, Any] = {
        "content": {"S": "no json"},
        "revision": {"S": "x"},
        "due": {"N": "5"},
        "owner": {"S": "x" * 600},
        "accepted": {"S": "soon"},
    }
    match damage:
        case "home":
            await lab.client.delete_item(TableName=lab.name, Key=home_key(call.call))
        case "part":
            parts = [item for item in await lab.items() if item["pk"]["S"].startswith("call-parts#")]
            await lab.client.delete_item(
                TableName=lab.name, Key={name: parts[0][name] for name in ("pk", "sk")}
            )
        case "changed part":
            parts = [item for item in await lab.items() if item["pk"]["S"].startswith("call-parts#")]
            await lab.client.put_item(TableName=lab.name, Item={**parts[0], "part": {"B": b"other"}})
        case "payload":
            home = {**home_key(call.call), "function": {"S": ORDERS}, "at": {"S": due_key(call)}}
            await lab.client.put_item(TableName=lab.name, Item=home)
        case "everything":
            await lab.client.put_item(TableName=lab.name, Item=due)
        case name:
            row = (await lab.client.get_item(TableName=lab.name, Key=due))["Item"]
            await lab.client.put_item(TableName=lab.name, Item={**row, name: values[name]})


DAMAGES = [
    "content", "revision", "due", "owner", "accepted", "home", "part", "changed part", "payload", "everything",
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_call_hides_only_itself_and_is_told_once(
    damage: str, in_lab: InLab, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(lab: Lab) -> None:
        queue = lab.queue()
        await queue.put(asked("bad", due=NOW - 5))
        await _damage(lab, damage)
        await queue.put(asked("good"))
        for _ in range(3):
            (mine,) = await claim(queue, calls_max=1)
            assert (mine.call, mine.payload) == ("good", LONG)
            assert "good" in [each.call for each in await queue.calls(ORDERS, calls_max=5)]
            (backlog,) = await queue.backlogs()
            assert (backlog.calls, backlog.function) == (2, ORDERS)
            assert backlog.oldest <= NOW

    with caplog.at_level(logging.WARNING, logger="poller.stores"):
        in_lab(scenario)
    told = [record for record in caplog.records if record.name == "poller.stores"]
    assert len(told) == 1
    assert "cannot be read" in told[0].getMessage()


@pytest.mark.parametrize("damage", ["content", "revision", "due", "payload", "everything"])
def test_a_damaged_call_is_not_written_over(damage: str, in_lab: InLab) -> None:
    async def scenario(lab: Lab) -> None:
        queue = lab.queue()
        bad = asked("bad", due=NOW - 5)
        await queue.put(bad)
        await _damage(lab, damage)
        before = await lab.items()
        for write in (queue.replace(bad), queue.remove(bad)):
            with pytest.raises(ServiceUnavailable, match="cannot be read"):
                await write
        await queue.put(bad)
        assert await lab.items() == before

    in_lab(scenario)
