"""Operations on a queue: failed messages are retried at once or skipped, and a pause keeps everything that it covers from running."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.errors import AccessDenied, LeaseLost, PortError, ServiceThrottled, ServiceUnavailable
from poller.domain.invocations import Outcome, Succeeded, Throttled
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationTarget,
    OperatorPause,
    PartResult,
)
from poller.domain.policies import BatchPolicy, QueuePolicy, RetryPolicy, ScalingPolicy
from poller.domain.records import Epoch, MappingId
from poller.domain.status import LaneStatus
from poller.rules.queues import interventions
from poller.runtime.invoking import Function
from poller.runtime.operations.operable import ResolvedRecords, SettledRecords
from poller.runtime.queues import queue_status
from poller.runtime.queues.operations.carrying import KNOWN_S_MAX
from poller.runtime.queues.operations.skipping import WAITING_S
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    failing,
    fifo,
    function_of,
    parts,
    plan,
    play,
    reporting,
    seconds,
    standard,
    throttled_until,
)
from tests.virtual import EPOCH_BASE

WORKER = "worker-1"
ROUND_S = 2.0
"""How often open operations are read."""


def asked(
    action: Action, *, group: str | None = None, wanted: Sequence[str] = (WORKER,), **members: Any
) -> Operation:
    """An operation that nobody has begun."""
    records = members.get("records")
    return Operation(
        operation=OperationId("op-1"),
        mapping=MappingId("m"),
        request=OperationRequest(action=action, target=OperationTarget(group=group), members=members),
        created=Epoch(0.0),
        wanted=tuple(wanted),
        notes={"records": records} if isinstance(records, list) else {},
    )


async def carried_out(
    mapping: QueueMapping, operation: Operation, *, rounds: int = 20
) -> tuple[PartResult | None, Operation]:
    """What the follower of the operations does: it calls again until the part is over, and keeps what it is given."""
    for _ in range(rounds):
        match await mapping.carry_out(WORKER, operation):
            case PartResult() as result:
                return result, operation
            case ResolvedRecords(records):
                operation = replace(operation, notes={**operation.notes, "records": list(records)})
            case SettledRecords(records, line):
                settled = [*operation.notes.get("settled", []), *records]
                lines = [*operation.notes.get("results", []), line]
                operation = replace(
                    operation, notes={**operation.notes, "settled": settled, "results": lines}
                )
            case None:
                await asyncio.sleep(ROUND_S)
    return None, operation


def pause(group: str | None = None, *, by: str = "ann", since: float = 5.0) -> OperatorPause:
    return OperatorPause(
        operation=OperationId(f"pause-{group}"),
        target=OperationTarget(group=group),
        by=by,
        since=Epoch(since),
        reason="the bank is closed",
    )


def lane(mapping: QueueMapping, name: str) -> LaneStatus:
    return next(each for each in mapping.lanes() if each.lane == name)


def run(service: Service, handler: Handler, script: Any, **changes: Any) -> None:
    play(parts(service, function_of(handler), plan(service, **changes)), script)


def healed_after(moment: float, *numbers: int) -> Callable[[list[int]], Outcome]:
    """Fails these until then."""
    bad = failing(*numbers)
    return lambda got: bad(got) if seconds() < moment else Succeeded(b"")


SERIAL = {"scaling": ScalingPolicy(concurrency_max=1)}


# retry


@pytest.mark.parametrize("make", [standard, fifo])
def test_a_retry_makes_a_failed_message_run_at_once(make: Callable[..., Service]) -> None:
    service, handler = make(600), Handler(answer=healed_after(5.0, 1))
    service.send(1, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(10.0)
        result, __ = await carried_out(mapping, asked(Action.RETRY))
        assert result == PartResult(state=OperationState.DONE, result="1 message is visible again")
        await asyncio.sleep(1.0)
        assert handler.done == [1]

    run(service, handler, script)
    assert handler.times == pytest.approx([0.0, 10.0], abs=0.5)
    assert service.received == {1: 2}, "a receive is used up"


def test_a_retry_of_a_group_leaves_other_groups_waiting_and_keeps_its_order() -> None:
    service, handler = fifo(600), Handler(answer=healed_after(5.0, 1, 2, 3, 11))
    service.send(1, 2, 3, group="a")
    service.send(11, group="b")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(10.0)
        result, __ = await carried_out(mapping, asked(Action.RETRY, group="a"))
        assert result is not None
        assert result.state is OperationState.DONE
        await asyncio.sleep(1.0)

    run(service, handler, script, batch=BatchPolicy(records_max=10), **ONE_GROUP)
    assert handler.done == [1, 2, 3]
    assert service.left == [11]


ONE_GROUP = {"queue": QueuePolicy(one_group_per_batch=True)}


def test_a_retry_of_what_is_not_known_here_is_done() -> None:
    service, handler = fifo(), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.0)
        result, __ = await carried_out(mapping, asked(Action.RETRY, group="a"))
        assert result == PartResult(state=OperationState.DONE, result="nothing of it is known here")

    run(service, handler, script)


def test_a_retry_ends_the_wait_of_a_refused_batch() -> None:
    service, handler = standard(600), Handler(answer=throttled_until(5.0))
    service.send(1)
    slow = QueuePolicy(backoff=replace(QueuePolicy().backoff, base_s=300.0, cap_s=300.0))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(10.0)
        await carried_out(mapping, asked(Action.RETRY))
        await asyncio.sleep(1.0)
        assert handler.done == [1]

    run(service, handler, script, queue=slow)


def test_a_retry_ends_the_wait_for_a_queue_that_cannot_be_read() -> None:
    service, handler = standard(), Handler()
    service.trouble["receive"] = [AccessDenied("no") for _ in range(5)]
    service.send(1)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        for _turn in range(6):
            await asyncio.sleep(1.0)
            await carried_out(mapping, asked(Action.RETRY))
        await asyncio.sleep(0.5)
        assert handler.done == [1]

    run(service, handler, script, **SERIAL)


def test_a_retry_in_a_pause_is_refused() -> None:
    service, handler = fifo(), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses([pause("a")])
        result, __ = await carried_out(mapping, asked(Action.RETRY, group="a"))
        assert result == PartResult(
            state=OperationState.FAILED, result="the group is paused; resume it first"
        )
        mapping.apply_pauses([pause()])
        result, __ = await carried_out(mapping, asked(Action.RETRY))
        assert result is not None
        assert "mapping is paused" in result.result

    run(service, handler, script)


# skip


@pytest.mark.parametrize("make", [standard, fifo])
@pytest.mark.parametrize("discard", [False, True])
def test_a_failed_message_is_skipped_while_it_waits(make: Callable[..., Service], *, discard: bool) -> None:
    service, handler = make(600), Handler(answer=failing(1))
    service.send(1, 2, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(10.0)
        begun = seconds()
        result, __ = await carried_out(
            mapping, asked(Action.SKIP, records=["message-000001"], discard=discard)
        )
        where = service.queue.facts.dead_letter_arn
        what = "deleted" if discard else f"moved to {where}"
        assert result == PartResult(state=OperationState.DONE, result=f"message-000001: {what}")
        assert seconds() - begun < 2.0
        await asyncio.sleep(1.0)
        assert handler.done == [2]
        assert not [each for each in mapping.lanes() if each.last_error]

    run(service, handler, script, batch=BatchPolicy(records_max=1), **SERIAL)
    assert service.left == []
    assert service.moved == ([] if discard else [1])


def test_the_first_of_a_failing_group_is_skipped_and_the_rest_goes_on_at_once_in_order() -> None:
    service, handler = fifo(600), Handler(answer=failing(1))
    service.send(1, 2, 3, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(10.0)
        assert lane(mapping, "a").records_count == 3
        result, operation = await carried_out(mapping, asked(Action.SKIP, group="a", records="first"))
        assert result is not None
        assert result.state is OperationState.DONE
        assert operation.notes["records"] == ["message-000001"]
        await asyncio.sleep(1.0)

    run(service, handler, script)
    assert handler.done == [2, 3]
    assert handler.times[-1] == pytest.approx(10.0, abs=0.5)
    assert service.moved == [1]


def test_a_failing_batch_is_skipped_in_order() -> None:
    service, handler = fifo(600), Handler(answer=failing(1))
    service.send(1, 2, 3, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(10.0)
        service.send(4, group="a")
        result, operation = await carried_out(mapping, asked(Action.SKIP, group="a", records="batch"))
        assert result is not None
        assert result.state is OperationState.DONE
        assert len(operation.notes["records"]) == 3
        await asyncio.sleep(1.0)

    run(service, handler, script)
    assert service.moved == [1, 2, 3]
    assert handler.done == [4]


def test_a_partly_failed_batch_of_a_group_is_known_by_what_failed() -> None:
    service, handler = fifo(600), Handler(answer=reporting(2))
    service.send(1, 2, 3, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(10.0)
        result, __ = await carried_out(mapping, asked(Action.SKIP, group="a", records="batch"))
        assert result is not None
        assert result.result.startswith("message-000002: moved")

    run(service, handler, script, retry=RetryPolicy(report_failures=True))
    assert service.moved == [2]
    assert service.left == []


def test_a_message_that_is_not_here_is_skipped_when_it_is_received() -> None:
    service, handler = standard(600), Handler(answer=failing(1))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        async def later() -> None:
            await asyncio.sleep(5.0)
            service.send(1, 2)

        async with asyncio.TaskGroup() as group:
            group.create_task(later(), name="later")
            result, __ = await carried_out(mapping, asked(Action.SKIP, records=["message-000001"]))
        assert result is not None
        assert result.state is OperationState.DONE

    run(service, handler, script)
    assert (handler.done, service.moved, service.left) == ([2], [1], [])


def test_a_skipped_message_that_is_running_is_skipped_when_it_has_failed() -> None:
    service, handler = fifo(600), Handler(takes_s=10.0, answer=failing(1))
    service.send(1, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        await carried_out(mapping, asked(Action.SKIP, records=["message-000001"], group="a"))
        assert seconds() < 14.0

    run(service, handler, script)
    assert (len(handler.calls), service.moved, service.left) == (1, [1], [])


def test_a_message_that_the_function_takes_meanwhile_is_settled_by_that() -> None:
    service, handler = standard(600), Handler(takes_s=10.0)
    service.send(1)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        result, __ = await carried_out(mapping, asked(Action.SKIP, records=["message-000001"]))
        assert result == PartResult(
            state=OperationState.DONE, result="message-000001: the function took it meanwhile"
        )

    run(service, handler, script)
    assert (service.moved, service.left) == ([], [])


def test_a_message_is_deleted_only_after_its_copy_was_sent() -> None:
    service, handler = fifo(600), Handler(answer=failing(1))
    service.trouble["send"] = [ServiceUnavailable("gone") for _ in range(2)]
    service.send(1, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(10.0)
        operation = asked(Action.SKIP, group="a", records=["message-000001"])
        for _try in range(2):
            assert await mapping.carry_out(WORKER, operation) is None
            assert service.left == [1]
        result, __ = await carried_out(mapping, operation)
        assert result is not None
        assert result.state is OperationState.DONE

    run(service, handler, script)
    assert (service.moved, service.left) == ([1], [])


@pytest.mark.parametrize("waiting", [True, False])
def test_a_message_that_cannot_be_moved_stays_and_the_operator_sees_why(*, waiting: bool) -> None:
    service, handler = fifo(600), Handler(answer=failing(1))
    service.trouble["send"] = [AccessDenied("not allowed to send") for _ in range(3)]

    async def script(mapping: QueueMapping, _: Stop) -> None:
        operation = asked(Action.SKIP, group="a", records=["message-000001"])
        if waiting:
            service.send(1, group="a")
            await asyncio.sleep(5.0)
        else:
            assert await mapping.carry_out(WORKER, operation) is None
            await asyncio.sleep(1.0)
            assert await mapping.carry_out(WORKER, operation) is None
            service.send(1, group="a")
            await asyncio.sleep(1.0)
            assert "cannot be moved: not allowed to send" in lane(mapping, "a").last_error
        result, __ = await carried_out(mapping, operation)
        assert result is not None
        assert result.state is OperationState.FAILED
        assert result.result.startswith("message message-000001 cannot be moved: not allowed to send; ")
        assert 'write "discard": true' in result.result

    run(service, handler, script)
    assert (service.moved, service.left) == ([], [1])


@pytest.mark.parametrize("make", [standard, fifo])
@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize(
    "error", [AccessDenied("no sqs:DeleteMessage"), ServiceUnavailable("no answer")], ids=["denied", "down"]
)
def test_a_message_that_cannot_be_deleted_is_copied_once_and_the_operator_sees_why(
    make: Callable[..., Service], error: PortError, *, waiting: bool, discard: bool
) -> None:
    service, handler = make(600), Handler(answer=failing(1))
    service.trouble["delete"] = [error] * 1_000

    async def script(mapping: QueueMapping, _: Stop) -> None:
        operation = asked(Action.SKIP, records=["message-000001"], discard=discard)
        if not waiting:
            assert await mapping.carry_out(WORKER, operation) is None
        service.send(1, group="a")
        await asyncio.sleep(5.0)
        result, __ = await carried_out(mapping, operation, rounds=200)
        where = service.queue.facts.dead_letter_arn
        remedy = (
            "ask again when that is repaired"
            if discard
            else f'its copy is in {where}, so write "discard": true when you ask again after the repair'
        )
        text = f"message message-000001 cannot be deleted: {error.reason}; {remedy}"
        assert result == PartResult(state=OperationState.FAILED, result=text)
        assert service.moved == ([] if discard else [1])
        service.trouble["delete"] = []
        await carried_out(mapping, replace(operation, request=asked(Action.SKIP, discard=True).request))

    run(service, handler, script)
    assert (service.moved, service.left) == ([] if discard else [1], [])


@pytest.mark.parametrize("discard", [False, True])
def test_messages_are_copied_once_while_deletes_fail_now_and_then(*, discard: bool) -> None:
    service, numbers = standard(30), range(1, 21)
    handler = Handler(answer=failing(*numbers))
    service.trouble["delete"] = [ServiceThrottled("busy")] * 2
    service.refuse_deletes = [False] * 3 + [True] * 4 + [False] * 2

    async def script(mapping: QueueMapping, _: Stop) -> None:
        service.send(*numbers)
        await asyncio.sleep(10.0)
        operation = asked(Action.SKIP, records=[f"message-{each:06d}" for each in numbers], discard=discard)
        result, __ = await carried_out(mapping, operation, rounds=200)
        assert result is not None
        assert result.state is OperationState.DONE

    run(service, handler, script, batch=BatchPolicy(records_max=1))
    assert sorted(service.moved) == ([] if discard else list(numbers))
    assert service.left == []


def test_a_skip_begins_with_no_other_message_after_one_cannot_be_deleted() -> None:
    service, numbers = standard(900), range(1, 31)
    handler = Handler(answer=failing(*numbers))
    service.trouble["delete"] = [AccessDenied("no sqs:DeleteMessage")] * 1_000

    async def script(mapping: QueueMapping, _: Stop) -> None:
        service.send(*numbers)
        await asyncio.sleep(10.0)
        operation = asked(Action.SKIP, records=[f"message-{each:06d}" for each in numbers])
        result, __ = await carried_out(mapping, operation)
        assert result is not None
        assert result.state is OperationState.FAILED

    run(service, handler, script, batch=BatchPolicy(records_max=1))
    assert len(service.moved) == 1
    assert len(service.left) == len(numbers)


@pytest.mark.parametrize(
    "error", [AccessDenied("no sqs:ChangeMessageVisibility"), ServiceUnavailable("down")]
)
def test_a_skip_whose_messages_cannot_be_hidden_says_so(error: PortError) -> None:
    service, handler = standard(900), Handler(answer=failing(1))
    service.send(1)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        service.trouble["extend"] = [error] * 1_000
        result, __ = await carried_out(mapping, asked(Action.SKIP, records=["message-000001"]), rounds=50)
        assert result is not None
        assert result.result.startswith(f"message message-000001 cannot be deleted: {error.reason}; ")

    run(service, handler, script)
    assert (service.moved, service.left) == ([], [1])


def test_a_queue_without_dead_letters_can_only_discard() -> None:
    service, handler = fifo(600), Handler(answer=failing(1))
    service.queue.facts = replace(service.queue.facts, dead_letter_arn=None)
    service.send(1, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        result, __ = await carried_out(mapping, asked(Action.SKIP, group="a", records="first"))
        assert result is not None
        assert result.state is OperationState.FAILED
        assert 'write "discard": true' in result.result

    run(service, handler, script)
    assert service.left == [1]


@pytest.mark.parametrize("troubles", [0, 1])
def test_a_dead_letter_queue_that_was_added_meanwhile_is_noticed(troubles: int) -> None:
    service, handler = fifo(600), Handler(answer=failing(1))
    with_dead_letters = service.queue.facts
    service.queue.facts = replace(with_dead_letters, dead_letter_arn=None)
    service.send(1, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        service.queue.facts = with_dead_letters
        service.trouble["describe"] = [ServiceUnavailable("gone")] * troubles
        for _try in range(troubles):
            result, __ = await carried_out(mapping, asked(Action.SKIP, group="a", records="first"))
            assert result is not None
            assert "cannot be read again: gone; ask again" in result.result
        result, __ = await carried_out(mapping, asked(Action.SKIP, group="a", records="first"))
        assert result is not None
        assert result.state is OperationState.DONE

    run(service, handler, script)
    assert (service.moved, service.left) == ([1], [])


@pytest.mark.parametrize("latency_s", [0.0, 0.2, 1.0, 4.0])
@pytest.mark.parametrize("discard", [False, True])
def test_a_skip_of_many_messages_is_known_to_its_end_however_slow_the_queue_is(
    latency_s: float, *, discard: bool
) -> None:
    service = standard(900)
    numbers = range(1, 31)
    handler = Handler(answer=failing(*numbers))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        service.send(*numbers)
        await asyncio.sleep(10.0)
        service.latency_s = latency_s

        async def others() -> None:
            for number in range(1000, 1060):
                service.send(number)
                await asyncio.sleep(0.5)

        async with asyncio.TaskGroup() as group:
            group.create_task(others(), name="others")
            operation = asked(
                Action.SKIP, records=[f"message-{each:06d}" for each in numbers], discard=discard
            )
            result, operation = await carried_out(mapping, operation, rounds=200)
        assert result is not None
        assert result.state is OperationState.DONE
        assert len(operation.notes["settled"]) == len(numbers)

    run(service, handler, script, batch=BatchPolicy(records_max=1))
    assert sorted(service.moved) == ([] if discard else list(numbers))
    assert service.left == []


def test_what_is_skipped_is_stored_while_the_rest_is_still_to_be_skipped() -> None:
    service, numbers = standard(900), range(1, 31)
    handler = Handler(answer=failing(*numbers))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        service.send(*numbers)
        await asyncio.sleep(10.0)
        service.latency_s, begun = 0.2, seconds()
        found = await mapping.carry_out(
            WORKER, asked(Action.SKIP, records=[f"message-{each:06d}" for each in numbers])
        )
        assert isinstance(found, SettledRecords)
        assert 0 < len(found.records) < len(numbers)
        assert seconds() - begun < 2 * WAITING_S

    run(service, handler, script, batch=BatchPolicy(records_max=1))


def test_a_dead_letter_queue_that_refuses_now_and_then_does_not_end_a_skip() -> None:
    service, numbers = standard(900), range(1, 31)
    handler = Handler(answer=failing(*numbers))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        service.send(*numbers)
        await asyncio.sleep(10.0)
        operation = asked(Action.SKIP, records=[f"message-{each:06d}" for each in numbers])
        service.trouble["send"] = [ServiceThrottled("busy") for _ in range(2)]
        found = await mapping.carry_out(WORKER, operation)
        assert isinstance(found, SettledRecords)
        operation = replace(operation, notes={**operation.notes, "settled": list(found.records)})
        service.trouble["send"] = [ServiceThrottled("busy") for _ in range(2)]
        result, __ = await carried_out(mapping, operation)
        assert result is not None
        assert result.state is OperationState.DONE

    run(service, handler, script, batch=BatchPolicy(records_max=1))
    assert service.left == []


def test_an_unreadable_message_can_be_discarded_and_not_moved() -> None:
    service, handler = fifo(600), Handler()
    (letter,) = service.send(1, group="a")
    letter.unreadable = 100

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        result, __ = await carried_out(mapping, asked(Action.SKIP, group="a", records="first"))
        assert result is not None
        assert "cannot be moved" in result.result
        result, __ = await carried_out(mapping, asked(Action.SKIP, group="a", records="first", discard=True))
        assert result == PartResult(state=OperationState.DONE, result="message-000001: deleted")

    run(service, handler, script)
    assert service.left == []


def test_a_group_that_does_not_fail_has_nothing_to_skip() -> None:
    service, handler = fifo(600), Handler(answer=failing(1))
    service.send(1, group="b")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        result, __ = await carried_out(mapping, asked(Action.SKIP, group="a", records="first"))
        assert result is not None
        assert result.state is OperationState.FAILED
        assert result.result.endswith("failing here: b")
        assert seconds() >= 5.0 + KNOWN_S_MAX, "another worker may know it"

    run(service, handler, script)


def test_a_skip_ends_here_when_another_worker_has_settled_it() -> None:
    service, handler = fifo(600), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        operation = asked(Action.SKIP, group="a", records=["message-000001"], wanted=[WORKER, "worker-2"])
        await asyncio.sleep(1.0)
        assert await mapping.carry_out(WORKER, operation) is None
        notes = {**operation.notes, "settled": ["message-000001"], "results": ["message-000001: deleted"]}
        result = await mapping.carry_out(WORKER, replace(operation, notes=notes))
        assert result == PartResult(state=OperationState.DONE, result="message-000001: deleted")

    run(service, handler, script)


def test_a_skip_that_is_cancelled_is_forgotten() -> None:
    service, handler = standard(600), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.0)
        assert await mapping.carry_out(WORKER, asked(Action.SKIP, records=["message-000001"])) is None
        await asyncio.sleep(interventions.ARMED_S + 1.0)
        service.send(1)
        await asyncio.sleep(1.0)

    run(service, handler, script)
    assert (handler.done, service.moved) == ([1], [])


def test_a_skip_is_not_carried_out_by_a_mapping_that_stops() -> None:
    service, handler = standard(600), Handler()

    async def script(mapping: QueueMapping, stop: Stop) -> None:
        await asyncio.sleep(1.0)
        stop.request(Reason.REQUESTED)
        with pytest.raises(LeaseLost):
            await mapping.carry_out(WORKER, asked(Action.SKIP, records=["message-000001"]))

    run(service, handler, script)


# Messages that wait here for the function


async def refused_and_late(service: Service, mapping: QueueMapping, function: Function) -> None:
    """The function refused the batch, and its next try is far away."""
    service.send(1, 2, group="a")
    await asyncio.sleep(1.0)


async def refused_and_no_slot(service: Service, mapping: QueueMapping, function: Function) -> None:
    """The function refused the batch, and others have its only slot since."""
    service.send(1, 2, group="a")
    await asyncio.sleep(1.0)
    await function.slots.acquire()
    await asyncio.sleep(600.0)


async def held_and_no_slot(service: Service, mapping: QueueMapping, function: Function) -> None:
    """The pause of the group has ended, and others have the function's only slot."""
    mapping.apply_pauses([pause("a")])
    service.send(1, 2, group="a")
    await asyncio.sleep(60.0)
    await function.slots.acquire()
    mapping.apply_pauses([])
    await asyncio.sleep(5.0)


WAITS = [refused_and_late, refused_and_no_slot, held_and_no_slot]


def refusing(_: list[int]) -> Outcome:
    """Asks to come again in an hour."""
    return Throttled("no room", retry_after_s=3600.0)


def waiting(wait: Any, act: Callable[[QueueMapping], Any]) -> Service:
    """Does this with a mapping whose messages wait for the function."""
    service, handler = fifo(6000), Handler(answer=refusing)
    function = function_of(handler, limit=1)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await wait(service, mapping, function)
        calls = len(handler.calls)
        await act(mapping)
        assert len(handler.calls) == calls, "nothing is called for that"

    play(parts(service, function, plan(service)), script)
    return service


@pytest.mark.parametrize("wait", WAITS)
def test_messages_that_wait_for_the_function_are_skipped_at_once(wait: Any) -> None:
    async def act(mapping: QueueMapping) -> None:
        begun = seconds()
        result, __ = await carried_out(mapping, asked(Action.SKIP, records=["message-000001"]))
        assert result is not None
        assert result.state is OperationState.DONE
        assert seconds() - begun <= 2 * ROUND_S

    service = waiting(wait, act)
    assert (service.moved, service.left) == ([1], [2])


@pytest.mark.parametrize("wait", WAITS)
def test_messages_that_wait_for_the_function_are_given_back_when_the_mapping_is_paused(wait: Any) -> None:
    async def act(mapping: QueueMapping) -> None:
        begun = seconds()
        mapping.apply_pauses([pause()])
        await asyncio.sleep(60.0)
        assert not [each for each in mapping.lanes() if each.records_count]
        service_time = EPOCH_BASE + begun + 30.0
        shown.append(service_time)

    shown: list[float] = []
    service = waiting(wait, act)
    assert all(each.visible_at <= shown[0] for each in service.queue.letters.values())
    assert service.left == [1, 2]


@pytest.mark.parametrize("wait", WAITS)
def test_messages_that_wait_for_the_function_are_held_when_their_group_is_paused(wait: Any) -> None:
    async def act(mapping: QueueMapping) -> None:
        mapping.apply_pauses([pause("a")])
        await asyncio.sleep(1.0)
        assert lane(mapping, "a").records_count == 2
        assert not [each for each in mapping.lanes() if each.lane.startswith("poller") and each.records_count]

    assert waiting(wait, act).left == [1, 2]


def test_a_skip_does_not_shorten_the_wait_of_the_messages_beside_it() -> None:
    service = fifo(6000)
    handler = Handler(answer=lambda got: refusing(got) if seconds() < 5.0 else Succeeded(b""))
    service.send(1, 2, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(60.0)
        await carried_out(mapping, asked(Action.SKIP, records=["message-000001"]))
        await asyncio.sleep(60.0)
        assert handler.done == []
        await asyncio.sleep(3600.0)

    run(service, handler, script)
    assert (service.moved, handler.done) == ([1], [2])


# pause


@pytest.mark.parametrize("make", [standard, fifo])
def test_a_paused_mapping_receives_nothing_and_finishes_what_runs(make: Callable[..., Service]) -> None:
    service, handler = make(600), Handler(takes_s=10.0)
    service.send(1, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        mapping.apply_pauses([pause()])
        service.send(2, group="b")
        await asyncio.sleep(60.0)
        assert handler.done == [1]
        received = len(service.receives)
        await asyncio.sleep(600.0)
        assert len(service.receives) == received
        mapping.apply_pauses([])
        await asyncio.sleep(1.0)
        assert handler.calls[-1] == [2]

    run(service, handler, script)
    assert service.left == []


def test_a_receive_that_runs_when_a_pause_begins_gives_its_messages_back_in_order() -> None:
    service, handler = fifo(600), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.0)
        mapping.apply_pauses([pause()])
        service.send(1, 2, 3, group="a")
        await asyncio.sleep(60.0)
        assert handler.calls == []
        assert all(each.visible_at <= EPOCH_BASE + 30.0 for each in service.queue.letters.values())
        assert service.received == {1: 1, 2: 1, 3: 1}
        mapping.apply_pauses([])
        await asyncio.sleep(1.0)
        assert handler.done == [1, 2, 3]

    run(service, handler, script)


def test_a_refused_batch_is_given_back_when_a_pause_begins() -> None:
    service, handler = fifo(600), Handler(answer=throttled_until(30.0))
    service.send(1, 2, group="a")
    slow = QueuePolicy(backoff=replace(QueuePolicy().backoff, base_s=300.0, cap_s=300.0))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.0)
        calls = len(handler.calls)
        mapping.apply_pauses([pause()])
        await asyncio.sleep(60.0)
        assert len(handler.calls) == calls
        assert len(mapping.lanes()) == 0
        mapping.apply_pauses([])
        await asyncio.sleep(5.0)
        assert handler.done == [1, 2]

    run(service, handler, script, queue=slow)


def test_a_gathering_batch_is_given_back_when_a_pause_begins() -> None:
    service, handler = standard(600), Handler()
    service.send(1, 2)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.0)
        mapping.apply_pauses([pause()])
        await asyncio.sleep(290.0)
        assert handler.calls == []
        mapping.apply_pauses([])
        await asyncio.sleep(301.0)
        assert sorted(handler.done) == [1, 2]

    run(service, handler, script, batch=BatchPolicy(records_max=100, window_s=300.0))


def test_nothing_is_received_before_the_pauses_are_known() -> None:
    service, handler = standard(), Handler()
    service.send(1)
    given = replace(parts(service, function_of(handler), plan(service)), operated=True)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(30.0)
        assert service.receives == []
        mapping.apply_pauses([])
        await asyncio.sleep(1.0)
        assert handler.done == [1]

    play(given, script)


def test_no_pollers_are_added_for_the_time_of_a_pause() -> None:
    service, handler = standard(600), Handler(takes_s=30.0)
    service.send(*range(60))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.5)
        before = handler.in_flight_max
        mapping.apply_pauses([pause()])
        await asyncio.sleep(120.25)
        service.send(*range(60, 600))
        mapping.apply_pauses([])
        await asyncio.sleep(0.5)
        assert handler.in_flight_max <= before + 2
        await asyncio.sleep(10.0)
        assert before + 40 <= handler.in_flight_max <= before + 53

    run(service, handler, script, batch=BatchPolicy(1))


def test_no_pollers_are_added_for_the_time_before_the_pauses_are_known() -> None:
    service, handler = standard(600), Handler(takes_s=30.0)
    service.send(*range(100))
    given = replace(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), operated=True)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.85)
        mapping.apply_pauses([])
        await asyncio.sleep(0.2)
        assert handler.in_flight_max == 5
        await asyncio.sleep(1.0)
        assert handler.in_flight_max == 10

    play(given, script)


def test_a_paused_group_waits_and_others_go_on() -> None:
    service, handler = fifo(30), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses([pause("a")])
        service.send(1, 2, 3, group="a")
        service.send(11, 12, group="b")
        await asyncio.sleep(3600.0)
        assert handler.done == [11, 12]
        assert service.received[1] == 1, "held messages use up no receives"
        shown = lane(mapping, "a")
        assert (shown.state, shown.records_count) == ("paused", 3)
        assert shown.paused is not None
        assert shown.paused.reason == "the bank is closed"
        mapping.apply_pauses([])
        await asyncio.sleep(2.0)
        assert handler.done == [11, 12, 1, 2, 3]

    run(service, handler, script, **SERIAL)
    assert service.received == {1: 1, 2: 1, 3: 1, 11: 1, 12: 1}


def test_a_paused_group_is_held_without_extend_visibility_too() -> None:
    service, handler = fifo(30), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses([pause("a")])
        service.send(1, group="a")
        await asyncio.sleep(3600.0)
        mapping.apply_pauses([])
        await asyncio.sleep(1.0)

    run(service, handler, script, queue=QueuePolicy(extend_visibility=False))
    assert (handler.done, service.received) == ([1], {1: 1})


def test_a_group_paused_for_days_uses_up_a_receive_every_twelve_hours() -> None:
    service, handler = fifo(600), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses([pause("a")])
        service.send(1, 2, group="a")
        await asyncio.sleep(30 * 3600.0)
        assert handler.calls == []
        mapping.apply_pauses([])
        await asyncio.sleep(2.0)

    run(service, handler, script, **SERIAL)
    assert handler.done == [1, 2]
    assert service.received == {1: 3, 2: 3}


def test_a_group_that_runs_when_it_is_paused_finishes_its_event_and_holds_the_rest() -> None:
    service, handler = fifo(30), Handler(takes_s=10.0)
    service.send(1, 2, 3, group="a")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        mapping.apply_pauses([pause("a")])
        await asyncio.sleep(100.0)
        assert handler.done == [1]
        mapping.apply_pauses([])
        await asyncio.sleep(30.0)
        assert handler.done == [1, 2, 3]

    run(service, handler, script, batch=BatchPolicy(records_max=10, payload_bytes_max=900), **SERIAL)


def test_a_held_group_is_visible_again_after_a_stop() -> None:
    service, handler = fifo(600), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses([pause("a")])
        service.send(1, 2, group="a")
        await asyncio.sleep(60.0)

    run(service, handler, script)
    assert all(each.visible_at <= EPOCH_BASE + 62.0 for each in service.queue.letters.values())
    other = Handler()
    run(service, other, 100.0)
    assert (handler.calls, other.done) == ([], [1, 2])


def test_a_message_of_a_paused_group_can_be_skipped() -> None:
    service, handler = fifo(600), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses([pause("a")])
        service.send(1, 2, group="a")
        await asyncio.sleep(60.0)
        result, __ = await carried_out(mapping, asked(Action.SKIP, group="a", records=["message-000001"]))
        assert result is not None
        assert result.state is OperationState.DONE
        await asyncio.sleep(60.0)
        assert handler.calls == []
        mapping.apply_pauses([])
        await asyncio.sleep(1.0)

    run(service, handler, script)
    assert (handler.done, service.moved, service.left) == ([2], [1], [])


def test_large_held_messages_are_received_again_when_the_pause_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interventions, "HELD_BYTES_MAX", 10)
    service, handler = fifo(600), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses([pause("a")])
        service.send(1, 2, group="a")
        await asyncio.sleep(60.0)
        mapping.apply_pauses([])
        await asyncio.sleep(1.0)

    run(service, handler, script)
    assert handler.done == [1, 2]
    assert service.received == {1: 2, 2: 2}


def test_a_pause_of_many_groups_holds_at_most_one_receive_of_each() -> None:
    service, handler = fifo(600), Handler()
    groups = [f"g{number}" for number in range(30)]

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses([pause(group) for group in groups])
        for place, group in enumerate(groups):
            service.send(*range(100 * place, 100 * place + 20), group=group)
        service.send(9000, group="free")
        await asyncio.sleep(120.0)
        assert handler.done == [9000]
        counts = [lane(mapping, group).records_count for group in groups]
        assert all(0 < each <= 10 for each in counts)

    run(service, handler, script, **SERIAL)
    assert len(groups) < queue_status.LANES_SHOWN_MAX
