"""What every queue of asynchronous calls does: in memory, in a file, in a table of an emulator, and in a database."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.stores.dynamodb.call_rows import DynamoDbCallQueue
from adapters.stores.dynamodb.calls import Table
from adapters.stores.dynamodb.store import DynamoStore
from adapters.stores.dynamodb.table import ready
from adapters.stores.memory import MemoryStore
from adapters.stores.memory_calls import MemoryCallQueue
from adapters.stores.postgresql.plugin import open_postgresql
from adapters.stores.postgresql.settings import PostgresSettings
from adapters.stores.sqlite import store as sqlite
from adapters.stores.stored_calls import CONTENT_BYTES_MAX, NAME_BYTES_MAX, UNDELIVERED_MAX
from poller.call_queue_ports import CallQueue, HasCallQueue
from poller.clock import LoopClock
from poller.domain.errors import PortError, ResourceMissing, RowChanged, ServiceUnavailable
from poller.domain.functions.queued_calls import (
    ANSWER_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    CallAnswer,
    CallBacklog,
    CallEnd,
    CallId,
    CallPlace,
    EndedCall,
    QueuedCall,
)
from poller.domain.records import Epoch, WorkerId
from poller.plugins import Environment
from tests.contracts.worlds import EmulatorWorld
from tests.emulators import Emulator
from tests.postgres import Postgres

type Doors = tuple[CallQueue, CallQueue]
type Opening = Callable[[], AbstractAsyncContextManager[Doors]]

ANN, BOB = WorkerId("ann"), WorkerId("bob")
ORDERS, AUDIT = "orders", "audit"
NOW = Epoch(1_700_000_000.25)
LATER = Epoch(NOW + 60.5)
TABLES = count()


@asynccontextmanager
async def in_memory() -> AsyncGenerator[Doors]:
    """One queue, as two daemons on one event loop share it."""
    store = MemoryStore()
    yield store.call_queue, store.call_queue


def in_file(path: Path) -> Opening:
    """A file that two connections of their own write, as two processes would."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Doors]:
        async with AsyncExitStack() as stack:
            given = sqlite.SqliteSettings(url=f"sqlite://{path}", synchronous="normal")
            stores = [
                await stack.enter_async_context(sqlite.plugin.open(given, Environment(LoopClock())))
                for _ in range(2)
            ]
            yield stores[0].call_queue, stores[1].call_queue

    return opened


def in_table(world: EmulatorWorld, url: str, name: str) -> Opening:
    """A table that two stores use."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Doors]:
        client = await world.client(url, "dynamodb")
        await ready(client, name, create=True)
        one, two = (DynamoStore(client, name, call_timeout_s=10) for _ in range(2))
        yield one.call_queue, two.call_queue

    return opened


def in_database(url: str) -> Opening:
    """A schema that two stores use, each with connections of its own."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Doors]:
        async with AsyncExitStack() as stack:
            given, queues = PostgresSettings.model_validate({"url": url}), []
            for _ in range(2):
                store = await stack.enter_async_context(open_postgresql(given, Environment(LoopClock())))
                assert isinstance(store, HasCallQueue)
                queues.append(store.call_queue)
            yield queues[0], queues[1]

    return opened


@dataclass(frozen=True, slots=True)
class Queues:
    """A queue of one store, and the loop of this module."""

    world: EmulatorWorld
    opening: Opening

    def run(self, scenario: Callable[[CallQueue, CallQueue], Coroutine[Any, Any, None]]) -> None:
        """Runs a scenario on two doors of the queue."""

        async def whole() -> None:
            async with self.opening() as (one, two):
                await scenario(one, two)

        self.world.run(whole())


@pytest.fixture(params=["memory", "sqlite", "dynamodb", "postgresql"])
def queues(request: pytest.FixtureRequest, laboratory: EmulatorWorld, tmp_path: Path) -> Queues:
    """An empty queue of each store."""
    match request.param:
        case "memory":
            return Queues(laboratory, in_memory)
        case "sqlite":
            return Queues(laboratory, in_file(tmp_path / "state.db"))
        case "postgresql":
            server: Postgres = request.getfixturevalue("postgres_server")
            return Queues(laboratory, in_database(server.url()))
        case _:
            emulator: Emulator = request.getfixturevalue("ministack")
            return Queues(laboratory, in_table(laboratory, emulator.url, f"calls-{next(TABLES)}"))


def asked(name: str = "one", function: str = ORDERS, due: float = NOW, payload: bytes = b"{}") -> QueuedCall:
    """A new call."""
    return QueuedCall(
        call=CallId(name),
        function=function,
        arn=f"arn:aws:lambda:eu-west-1:111122223333:function:{function}:live",
        payload=payload,
        accepted=Epoch(NOW - 1.5),
        due=Epoch(due),
        client_context="eyJhIjoxfQ==",
        trace_header="Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1",
    )


def over(call: QueuedCall, answer: bytes = b'"done"') -> QueuedCall:
    """The call as one that has ended and waits for its destinations."""
    told = CallAnswer(payload=answer, executed_version="7", function_error="Unhandled", error="größer")
    return replace(
        call, ended=EndedCall(CallEnd.RETRIES, NOW, told, ("arn:one", "https://two"), 3, "https://two")
    )


async def claim(
    queue: CallQueue,
    owner: WorkerId = ANN,
    *,
    function: str = ORDERS,
    now: float = NOW,
    gone: tuple[WorkerId, ...] = (),
    held: tuple[str, ...] = (),
    calls_max: int = 10,
) -> list[QueuedCall]:
    """What `owner` claims."""
    found = await queue.claim(
        function,
        now=Epoch(now),
        owner=owner,
        gone=gone,
        held=[CallId(each) for each in held],
        calls_max=calls_max,
    )
    return list(found)


def ids(calls: list[QueuedCall]) -> list[str]:
    """The ids of calls, in their order."""
    return [each.call for each in calls]


def test_every_store_of_the_project_has_a_queue(queues: Queues) -> None:
    async def scenario(one: CallQueue, _: CallQueue) -> None:
        assert await one.backlogs() == []

    queues.run(scenario)
    assert isinstance(MemoryStore(), HasCallQueue)
    assert isinstance(DynamoStore(None, "table", call_timeout_s=1), HasCallQueue)
    assert not isinstance(MemoryCallQueue(), HasCallQueue)


def test_a_claimed_call_is_as_it_was_put_with_its_owner_and_the_next_revision(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked())
        assert await claim(two) == [replace(asked(), owner=ANN, revision=1)]

    queues.run(scenario)


def test_putting_a_call_again_changes_nothing(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked())
        await two.put(asked())
        await two.put(replace(asked(), payload=b"other", due=LATER, function=AUDIT))
        (mine,) = await claim(one)
        moved = await one.replace(replace(mine, due=LATER, owner=None, attempts=1))
        await two.put(asked())
        assert await claim(two) == []
        assert await claim(two, function=AUDIT, now=LATER) == []
        assert await claim(two, now=LATER) == [replace(moved, owner=ANN, revision=3)]

    queues.run(scenario)


def test_the_call_that_is_due_longest_comes_first_and_ids_decide_between_equals(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        times = {"d": NOW, "b": NOW, "ä": NOW, "c": NOW - 1, "e": NOW - 100_000, "a": NOW - 0.000_5}
        for name, due in times.items():
            await one.put(asked(name, due=due))
        await one.put(asked("other", AUDIT, due=NOW - 5))
        expected = ["e", "c", "a", "b", "d", "ä"]
        assert ids(list(await two.calls(ORDERS, calls_max=10))) == expected
        assert ids(list(await two.calls(ORDERS, calls_max=2))) == expected[:2]
        assert ids(await claim(two, calls_max=0)) == []
        assert ids(await claim(two, calls_max=4)) == expected[:4]
        assert ids(await claim(two, held=tuple(expected[:4]))) == expected[4:]

    queues.run(scenario)


def test_a_call_is_claimed_when_it_is_due_and_not_before(queues: Queues) -> None:
    async def scenario(one: CallQueue, _: CallQueue) -> None:
        await one.put(asked("now", due=NOW))
        await one.put(asked("soon", due=NOW + 0.000_001))
        await one.put(asked("later", due=LATER))
        assert ids(await claim(one, now=NOW - 0.000_001)) == []
        assert ids(await claim(one)) == ["now"]
        assert ids(await claim(one, now=NOW + 0.000_001, held=("now",))) == ["soon"]
        assert ids(await claim(one, now=LATER, held=("now", "soon"))) == ["later"]

    queues.run(scenario)


def test_the_call_of_a_worker_that_is_gone_is_taken_over(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked())
        (first,) = await claim(one)
        assert await claim(two, BOB) == []
        assert await claim(two, BOB, gone=(WorkerId("carl"),)) == []
        (second,) = await claim(two, BOB, gone=(WorkerId("carl"), ANN))
        assert second == replace(first, owner=BOB, takeovers=1, revision=2)
        with pytest.raises(RowChanged):
            await one.replace(replace(first, owner=None))
        with pytest.raises(RowChanged):
            await one.remove(first)
        await two.remove(second)
        assert await two.backlogs() == []

    queues.run(scenario)


def test_what_an_earlier_process_of_a_worker_left_is_free_and_what_this_one_holds_is_not(
    queues: Queues,
) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked("a"))
        await one.put(asked("b"))
        first = await claim(one)
        assert await claim(two, held=("a", "b")) == []
        assert await claim(two, held=("a", "b"), gone=(ANN,)) == []
        assert await claim(two, held=("a",)) == [replace(first[1], takeovers=1, revision=2)]

    queues.run(scenario)


def test_of_many_claims_at_once_each_call_goes_to_one(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        names = [f"call-{number:02}" for number in range(40)]
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one.put(asked(name)))
        claimed: list[QueuedCall] = []

        async def work(queue: CallQueue, owner: WorkerId) -> None:
            mine: list[str] = []
            while True:
                found = await claim(queue, owner, held=tuple(mine), calls_max=3)
                mine += ids(found)
                claimed.extend(found)
                if not found and len(claimed) >= len(names):
                    return
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(work((one, two)[number % 2], WorkerId(f"w{number}")))
        assert Counter(ids(claimed)) == Counter(names)
        assert {each.takeovers for each in claimed} == {0}
        stored = await two.calls(ORDERS, calls_max=100)
        assert {each.call: each.owner for each in stored} == {each.call: each.owner for each in claimed}

    queues.run(scenario)


def test_a_replaced_call_has_all_its_new_values_and_its_old_payload(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked())
        (mine,) = await claim(one)
        wanted = replace(over(mine), owner=None, due=LATER, attempts=3, deferrals=2, payload=b"other")
        assert await one.replace(wanted) == replace(wanted, revision=2)
        assert await claim(two) == []
        kept = replace(wanted, payload=b"{}", owner=BOB, revision=3)
        assert await claim(two, BOB, now=LATER) == [kept]
        back = replace(kept, owner=None, due=NOW, ended=None)
        assert await two.replace(back) == replace(back, revision=4)
        assert await claim(one) == [replace(back, owner=ANN, revision=5)]

    queues.run(scenario)


@dataclass(frozen=True)
class _Change:
    name: str
    values: dict[str, Any]


CHANGES = [
    _Change("only its count", {"attempts": 1}),
    _Change("the time", {"due": LATER, "owner": None}),
    _Change("its end", {"ended": over(asked()).ended}),
    _Change("its end, long", {"ended": over(asked(), b"x" * 50_000).ended, "due": LATER}),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_the_same_replacement_again_finds_its_work_done(queues: Queues, change: _Change) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked())
        (mine,) = await claim(one)
        wanted = replace(mine, **change.values)
        first = await one.replace(wanted)
        assert await one.replace(wanted) == first == replace(wanted, revision=2)
        for unlike in (
            replace(wanted, trace_header="x"),
            replace(wanted, due=Epoch(NOW + 1)),
            over(wanted, b""),
        ):
            with pytest.raises(RowChanged):
                await two.replace(unlike)
        await two.replace(first)
        with pytest.raises(RowChanged):
            await one.replace(wanted)
        assert [each.revision for each in await one.calls(ORDERS, calls_max=5)] == [3]

    queues.run(scenario)


def test_a_call_that_is_not_there_cannot_be_replaced_and_may_be_removed(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        with pytest.raises(ResourceMissing):
            await one.replace(asked())
        await one.remove(asked())
        await one.put(asked())
        elsewhere = replace(asked(), function=AUDIT)
        with pytest.raises(ResourceMissing):
            await two.replace(elsewhere)
        await two.remove(elsewhere)
        assert ids(list(await two.calls(ORDERS, calls_max=5))) == ["one"]
        await two.remove(asked())
        await two.remove(asked())
        with pytest.raises(ResourceMissing):
            await one.replace(asked())
        assert [await one.calls(ORDERS, calls_max=5), await claim(one), await one.backlogs()] == [[], [], []]

    queues.run(scenario)


def test_a_call_is_removed_at_its_revision_wherever_it_stands(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked())
        (mine,) = await claim(one)
        moved = await one.replace(replace(mine, due=LATER))
        with pytest.raises(RowChanged):
            await two.remove(mine)
        # The time of the given call does not matter.
        await two.remove(replace(moved, due=NOW))
        assert await one.backlogs() == []

    queues.run(scenario)


def test_a_listing_has_neither_payloads_nor_answers(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked("a"))
        (mine,) = await claim(one)
        await one.replace(over(mine))
        await one.put(asked("b", due=LATER))
        listed = list(await two.calls(ORDERS, calls_max=5))
        assert listed == [
            replace(over(mine, b""), payload=b"", revision=2),
            replace(asked("b", due=LATER), payload=b""),
        ]
        assert [await two.calls(ORDERS, calls_max=0), await two.calls("none", calls_max=5)] == [[], []]

    queues.run(scenario)


def test_a_listing_goes_on_behind_a_place(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        for number in range(5):
            await one.put(asked(f"call-{number}", due=NOW + number // 2))
        seen: list[str] = []
        after = None
        while calls := await two.calls(ORDERS, calls_max=2, after=after):
            seen += ids(list(calls))
            after = CallPlace(calls[-1].due, calls[-1].call)
        assert seen == [f"call-{number}" for number in range(5)]
        assert await two.calls(ORDERS, calls_max=2, after=CallPlace(Epoch(NOW + 9), CallId(""))) == []
        before = await two.calls(ORDERS, calls_max=1, after=CallPlace(Epoch(NOW - 9), CallId("x")))
        assert ids(list(before)) == ["call-0"]

    queues.run(scenario)


def test_one_call_is_found_with_its_payload_and_answer_whoever_has_it(queues: Queues) -> None:
    payload, answer = random.Random(3).randbytes(40_000), random.Random(4).randbytes(40_000)

    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked(payload=payload))
        assert await two.find(ORDERS, CallId("one")) == asked(payload=payload)
        (mine,) = await claim(one)
        written = await one.replace(replace(over(mine, answer), last_error="connection refused"))
        assert await two.find(ORDERS, CallId("one")) == replace(written, payload=payload)
        assert await two.find(AUDIT, CallId("one")) is None
        assert await two.find(ORDERS, CallId("two")) is None
        await one.remove(written)
        assert await two.find(ORDERS, CallId("one")) is None

    queues.run(scenario)


def test_backlogs_tell_of_each_function_what_waits_and_who_works(queues: Queues) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        old = Epoch(NOW - 500)
        await one.put(asked("a", due=NOW - 2))
        await one.put(replace(asked("b", due=LATER), accepted=old))
        await one.put(asked("c", "ärger", due=NOW + 7))
        assert await two.backlogs() == [
            CallBacklog(function=ORDERS, calls=2, oldest=old, next_due=Epoch(NOW - 2)),
            CallBacklog(function="ärger", calls=1, oldest=Epoch(NOW - 1.5), next_due=Epoch(NOW + 7)),
        ]
        (mine,) = await claim(one)
        first = (await two.backlogs())[0]
        assert (first.next_due, first.owners) == (LATER, frozenset({ANN}))
        await claim(one, BOB, now=LATER)
        first = (await two.backlogs())[0]
        assert (first.calls, first.next_due, first.owners) == (2, Epoch(NOW - 2), frozenset({ANN, BOB}))
        await one.remove(mine)
        first = (await two.backlogs())[0]
        assert (first.calls, first.oldest, first.next_due, first.owners) == (1, old, LATER, frozenset({BOB}))

    queues.run(scenario)


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, 500_000, PAYLOAD_BYTES_MAX])
def test_a_payload_of_any_size_is_kept_to_the_byte(queues: Queues, size: int) -> None:
    payload = random.Random(size).randbytes(size)

    async def scenario(one: CallQueue, two: CallQueue) -> None:
        wanted = asked(payload=payload)
        await one.put(wanted)
        await two.put(wanted)
        (mine,) = await claim(one)
        assert mine.payload == payload
        moved = await one.replace(replace(mine, due=LATER, owner=None))
        (again,) = await claim(two, now=LATER)
        assert again.payload == payload
        assert again.revision == moved.revision + 1
        await two.remove(again)
        assert await claim(one, now=LATER, gone=(ANN,)) == []

    queues.run(scenario)


def test_the_longest_answer_is_kept_beside_the_longest_payload_and_may_be_replaced(queues: Queues) -> None:
    payload = random.Random(1).randbytes(PAYLOAD_BYTES_MAX)
    answer = random.Random(2).randbytes(ANSWER_BYTES_MAX)

    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(asked(payload=payload))
        (mine,) = await claim(one)
        ended = await one.replace(over(mine, answer))
        (mine,) = await claim(one)
        assert mine == replace(ended, payload=payload, takeovers=1, revision=3)
        assert mine.ended is not None
        later = replace(mine, ended=replace(mine.ended, deliveries=4, undelivered=()), owner=None, due=LATER)
        await one.replace(later)
        (mine,) = await claim(two, now=LATER)
        assert mine == replace(later, owner=ANN, revision=5)
        await two.replace(over(mine, b"short"))
        (mine,) = await claim(two, now=LATER)
        assert mine == replace(over(later, b"short"), owner=ANN, takeovers=2, revision=7)
        await two.remove(mine)

    queues.run(scenario)


ODD = [
    "",
    "\0",
    "#/c|d#",
    "\ud800",
    "größe \U0001f600",
    "'; DROP TABLE calls; --",
    "\x1b[31m\n",
    "x" * 5_000,
]


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_texts_that_are_no_keys_are_kept_as_they_are(queues: Queues, odd: str) -> None:
    wanted = replace(asked(), arn=odd, client_context=odd, trace_header=odd)
    told = CallAnswer(payload=b"\xff\0", executed_version=odd, function_error=odd, error=odd)
    ended = replace(wanted, ended=EndedCall(CallEnd.SKIPPED, NOW, told, (odd, odd)))

    async def scenario(one: CallQueue, two: CallQueue) -> None:
        await one.put(wanted)
        (mine,) = await claim(one)
        assert mine == replace(wanted, owner=ANN, revision=1)
        await one.replace(replace(ended, revision=1))
        (mine,) = await claim(two)
        assert mine == replace(ended, owner=ANN, revision=3)

    queues.run(scenario)


@pytest.mark.parametrize("odd", [ODD[2], *ODD[4:7], "x" * NAME_BYTES_MAX, "é" * (NAME_BYTES_MAX // 2)], ids=ascii)  # fmt: skip
def test_ids_and_names_may_be_odd_texts(queues: Queues, odd: str) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        wanted = asked(odd, odd)
        await one.put(wanted)
        await one.put(asked("other", odd, due=LATER))
        await two.put(wanted)
        (mine,) = await claim(one, WorkerId(odd), function=odd)
        assert mine == replace(wanted, owner=WorkerId(odd), revision=1)
        assert await claim(two, WorkerId(odd), function=odd, held=(odd,)) == []
        (mine,) = await claim(two, BOB, function=odd, gone=(WorkerId(odd),))
        (backlog,) = await one.backlogs()
        assert (backlog.function, backlog.calls, backlog.owners) == (odd, 2, frozenset({BOB}))
        moved = await two.replace(replace(mine, due=LATER))
        await two.remove(moved)
        assert ids(list(await one.calls(odd, calls_max=5))) == ["other"]

    queues.run(scenario)


BEYOND: dict[str, dict[str, Any]] = {
    "an empty id": {"call": ""},
    "an id that is no UTF-8": {"call": "\ud800"},
    "an id with a null character": {"call": "a\0b"},
    "a long id": {"call": "é" * (NAME_BYTES_MAX // 2) + "x"},
    "an empty function": {"function": ""},
    "a function that is no UTF-8": {"function": "\udfff"},
    "a long function": {"function": "x" * (NAME_BYTES_MAX + 1)},
    "a function with a null character": {"function": "\0"},
    "a long owner": {"owner": "x" * (NAME_BYTES_MAX + 1)},
    "no time": {"due": float("nan")},
    "a time before all": {"due": -1.0},
    "a time after all": {"accepted": float("inf")},
    "a negative count": {"attempts": -1},
    "a long payload": {"payload": b"x" * (PAYLOAD_BYTES_MAX + 1)},
    "a long text": {"client_context": "x" * CONTENT_BYTES_MAX},
    "a long answer": {"ended": EndedCall(CallEnd.AGE, NOW, CallAnswer(payload=b"x" * (ANSWER_BYTES_MAX + 1)))},
    "an end at no time": {"ended": EndedCall(CallEnd.AGE, Epoch(float("inf")), CallAnswer())},
    "many destinations": {"ended": EndedCall(CallEnd.AGE, NOW, CallAnswer(), ("x",) * (UNDELIVERED_MAX + 1))},
}  # fmt: skip


@pytest.mark.parametrize("beyond", BEYOND)
def test_a_call_beyond_its_bounds_is_refused_and_changes_nothing(queues: Queues, beyond: str) -> None:
    async def scenario(one: CallQueue, two: CallQueue) -> None:
        with pytest.raises(ServiceUnavailable, match="cannot be stored"):
            await one.put(replace(asked(), **BEYOND[beyond]))
        assert await two.backlogs() == []
        await one.put(asked())
        with pytest.raises(ServiceUnavailable, match="cannot be stored"):
            await two.replace(replace(asked(), **BEYOND[beyond]))
        assert await claim(one) == [replace(asked(), owner=ANN, revision=1)]

    queues.run(scenario)


NAMES = st.sampled_from(["a", "b", "c"])
OWNERS = st.sampled_from([ANN, BOB])
TIMES = st.sampled_from([NOW - 60, NOW - 0.000_001, NOW, NOW + 0.5, NOW + 60])
CONTENTS = st.sampled_from([b"", b"x" * 10, b"y" * 40, b"z" * 95])
VERBS = st.one_of(
    st.tuples(st.just("put"), NAMES, TIMES, CONTENTS),
    st.tuples(st.just("claim"), OWNERS, TIMES, st.sets(OWNERS), st.sets(NAMES), st.integers(0, 4)),
    st.tuples(st.just("replace"), NAMES, TIMES, st.none() | CONTENTS, st.none() | OWNERS, st.integers(0, 2)),
    st.tuples(st.just("remove"), NAMES, st.integers(0, 2)),
    st.tuples(st.just("calls"), st.integers(0, 3)),
    st.tuples(st.just("backlogs")),
)


class Histories:
    """Carries out the same verbs on several queues, and compares what each of them says."""

    def __init__(self, queues: list[CallQueue], prefix: str) -> None:
        self._queues = queues
        self._function = f"function-{prefix}"
        self._prefix = prefix
        self._seen: dict[str, list[QueuedCall]] = {}
        """Forms of each call that were stored once, the last one at the end."""

    async def step(self, verb: tuple[Any, ...]) -> None:
        """Carries out one verb everywhere."""
        do = self._verb(*verb)
        said = [await self._outcome(queue, do) for queue in self._queues]
        assert said[1:] == said[:-1]
        for each in said[0] if isinstance(said[0], list) else [said[0]]:
            if isinstance(each, QueuedCall):
                self._seen.setdefault(each.call, []).append(each)

    async def _outcome(self, queue: CallQueue, do: Callable[[CallQueue], Coroutine[Any, Any, Any]]) -> Any:
        try:
            found = await do(queue)
        except PortError as error:
            return type(error)
        if not isinstance(found, list):
            return found
        return [each for each in found if each.function == self._function]

    def _id(self, name: str) -> CallId:
        return CallId(f"{self._prefix}-{name}")

    def _form(self, name: str, back: int) -> QueuedCall:
        """A stored form of a call, the last one or an earlier one; a new call if there is none."""
        forms = self._seen.get(self._id(name)) or [asked(self._id(name), self._function)]
        return forms[max(len(forms) - 1 - back, 0)]

    def _verb(self, verb: str, *given: Any) -> Callable[[CallQueue], Coroutine[Any, Any, Any]]:
        match verb, given:
            case "put", (name, due, payload):
                new = asked(self._id(name), self._function, due=due, payload=payload)
                self._seen.setdefault(new.call, []).append(new)
                return lambda queue: queue.put(new)
            case "claim", (owner, now, gone, held, calls_max):
                held_ids = [self._id(name) for name in held]
                return lambda queue: queue.claim(
                    self._function, now=now, owner=owner, gone=gone, held=held_ids, calls_max=calls_max
                )
            case "replace", (name, due, answer, owner, back):
                form = self._form(name, back)
                ended = None if answer is None else over(form, answer).ended
                wanted = replace(form, due=due, owner=owner, ended=ended, attempts=form.attempts + 1)
                return lambda queue: queue.replace(wanted)
            case "remove", (name, back):
                form = self._form(name, back)
                return lambda queue: queue.remove(form)
            case "calls", (calls_max,):
                return lambda queue: queue.calls(self._function, calls_max=calls_max)
            case _:
                return lambda queue: queue.backlogs()


def test_random_histories_are_the_same_in_a_file_in_a_table_and_in_a_database_as_in_memory(
    laboratory: EmulatorWorld, tmp_path: Path, ministack: Emulator, postgres_server: Postgres
) -> None:
    files, table = count(), f"calls-{next(TABLES)}"

    async def example(verbs: list[tuple[Any, ...]]) -> None:
        client = await laboratory.client(ministack.url, "dynamodb")
        await ready(client, table, create=True)
        # Contents of 40 bytes and more are in parts.
        small = DynamoDbCallQueue(Table(client, table, call_timeout_s=10), room=30, inline=32)
        async with AsyncExitStack() as stack:
            in_sqlite, _ = await stack.enter_async_context(in_file(tmp_path / f"{next(files)}.db")())
            in_postgres, _ = await stack.enter_async_context(in_database(postgres_server.url())())
            histories = Histories([MemoryCallQueue(), in_sqlite, small, in_postgres], uuid.uuid4().hex)
            for verb in verbs:
                await histories.step(verb)
            await histories.step(("calls", 3))
            await histories.step(("backlogs",))

    @settings(max_examples=12, deadline=None)
    @given(st.lists(VERBS, min_size=8, max_size=30))
    def histories(verbs: list[tuple[Any, ...]]) -> None:
        laboratory.run(example(verbs))

    histories()
