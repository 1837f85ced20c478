"""Owns which requests become operations, and what is said of those that do not.

1. `read_request` (of `reading`) reads the document of a request. It knows nothing of mappings.
2. If the store has an operation with the id of the request, `repeated` says whether it is the same one. It is then the answer,
   whatever has become of its target since.
3. Otherwise `accept` checks the request against what the mapping is and what runs of it now, and makes the operation.
4. The store returns the operation that it has under this id. Somebody may have added another one meanwhile, so `repeated` is asked
   again about what was returned.

Each refusal names the member, what is wrong, and what to write instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from poller.domain.arns import Arn
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationTarget,
    function_of,
)
from poller.domain.plan import url_scheme
from poller.domain.records import Epoch, MappingId, ShardId, WorkerId
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import inflected, number_of
from poller.rules.operations import pauses, sizes
from poller.rules.operations.lifecycle import LONG, PARTS_MAX
from poller.rules.operations.members import BATCH, FIRST
from poller.rules.operations.reading import (
    LANES_MAX,
    NAME_CHARS_MAX,
    AskedOperation,
    OperationRefused,
)
from poller.rules.target_names import UnknownTarget, find_shard, may_name

OPEN_MAX = 1_000
"""Operations that are not over, of all mappings. Every worker reads all of them all the time."""
RESUMES_MAX = 100
"""So many more may be resumes, since all of the others may be pauses."""
SHOWN_MAX = 10
"""Shards, pauses or words that a refusal lists."""
ON_QUEUES = frozenset({Action.RETRY, Action.SKIP, Action.PAUSE, Action.RESUME, Action.REDRIVE})
_WITHOUT_SHARD = frozenset({Action.REPLAY, Action.REDRIVE})
_HELD = frozenset({Action.RETRY, Action.RESET, Action.SKIP})
"""Actions that only somebody who holds the shard or runs the queue can carry out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFacts:
    """What an operation is checked against.

    A stream has `shards`: those that have not ended, with the owner of each. A queue has `workers`: those that live and run the
    mapping. `destination` says whether what is given up can be sent somewhere: to an on-failure destination, or to a queue's
    dead-letter queue.
    """

    mapping: MappingId
    queue: bool
    fifo: bool = False
    lanes: int = LANES_MAX
    shards: Mapping[ShardId, WorkerId | None] = field(default_factory=dict)
    workers: Sequence[WorkerId] = ()
    destination: bool = False


def repeated(stored: Operation, mapping: MappingId, asked: AskedOperation) -> Operation:
    """The stored operation, if this request asked for it; raises OperationRefused if its id is that of something else."""
    shard = asked.request.target.shard
    if (
        shard is not None
        and stored.request.target.shard is not None
        and may_name(shard, stored.request.target.shard)
    ):
        shard = stored.request.target.shard
    request = replace(asked.request, target=replace(asked.request.target, shard=shard))
    if stored.mapping != mapping or stored.request != request:
        wrong = f"{stored.operation} is the id of another operation ({stored.request.action} of mapping {stored.mapping})"
        raise OperationRefused("id", f"{wrong}; write another id, or none", conflict=True)
    return stored


def accept(
    asked: AskedOperation,
    facts: MappingFacts,
    *,
    operation: OperationId,
    by: str,
    now: Epoch,
    open_operations: Sequence[Operation] = (),
    open_bytes: int = 0,
) -> Operation:
    """Makes the operation; raises OperationRefused. `operation` is the id of one whose client gave none.

    `open_operations` are those of all mappings that are not over, and `open_bytes` is what is reserved for all of them
    (`sizes.charged_bytes`).
    """
    action = asked.request.action
    check_room(action, open_operations)
    if action in LONG:
        check_alone(action, facts.mapping, open_operations)
    target = asked.request.target
    if facts.queue:
        _check_queue(action, target, facts)
    else:
        target = _stream_target(action, target, facts)
    request = replace(asked.request, target=target)
    if action is Action.SKIP:
        _check_skip(request, facts)
    if action is Action.REDRIVE:
        _check_place(request.members["from"], facts)
    accepted = Operation(
        operation=asked.operation or operation,
        mapping=facts.mapping,
        request=request,
        by=line_of(by, chars_max=NAME_CHARS_MAX),
        created=now,
        wanted=_wanted(action, target, facts),
        notes=_notes(request, facts, open_operations),
    )
    check_size(accepted, open_bytes=open_bytes)
    return accepted


def check_room(action: Action, open_operations: Sequence[Operation]) -> None:
    """Refuses one operation more than may be open at once; raises OperationRefused."""
    open_max = OPEN_MAX + (RESUMES_MAX if action is Action.RESUME else 0)
    if len(open_operations) >= open_max:
        remedy = "wait for them, cancel some, or resume what is paused"
        raise OperationRefused(
            "action",
            f"{number_of(open_max, 'operation')} {inflected(open_max, 'is', 'are')} not over yet; {remedy}",
            conflict=True,
        )


def check_size(accepted: Operation, *, open_bytes: int) -> None:
    """Refuses an operation that is too large, alone or beside those that are not over; raises OperationRefused."""
    size = sizes.charged_bytes(accepted)
    if size > sizes.OPERATION_BYTES_MAX:
        member = "records" if accepted.request.action is Action.SKIP else "shard"
        what = f"the operation would take {size} bytes, the limit is {sizes.OPERATION_BYTES_MAX}"
        raise OperationRefused(member, f"{what}; {sizes.remedy(accepted)}")
    if accepted.request.action is Action.RESUME:
        # It ends what is not over. Their number is limited.
        return
    if open_bytes + size > sizes.OPEN_BYTES_MAX:
        what = f"with this one the operations that are not over would take {open_bytes + size} bytes"
        limit = f"the limit is {sizes.OPEN_BYTES_MAX}"
        raise OperationRefused(
            "action", f"{what}, {limit}; wait for them, cancel some, or ask for less at once", conflict=True
        )


def check_alone(action: Action, mapping: MappingId, open_operations: Sequence[Operation]) -> None:
    """What takes long is done once at a time: two seeks, or two redrives, of a mapping would work on the same things. Raises OperationRefused."""
    for each in open_operations:
        if each.mapping == mapping and each.request.action is action:
            remedy = "wait until it is over, or cancel it"
            raise OperationRefused(
                "action",
                f"{action} {each.operation} of this {'mapping' if function_of(mapping) is None else 'function'} is not over; {remedy}",
                conflict=True,
            )


def _check_queue(action: Action, target: OperationTarget, facts: MappingFacts) -> None:
    if action is Action.RESET:
        text = "a queue has nothing to reset: SQS itself counts receives and age; use retry or skip"
        raise OperationRefused("action", text)
    if action not in ON_QUEUES:
        raise OperationRefused("action", f"{action} is for streams: a queue has no positions")
    for name, value in (("shard", target.shard), ("lane", target.lane)):
        if value is not None:
            raise OperationRefused(name, f"a queue has no {name}s; leave it out, or write a group")
    if target.group is not None and not facts.fifo:
        remedy = "leave it out; a skip names its messages in records"
        raise OperationRefused("group", f"only a FIFO queue can be addressed by group; {remedy}")


def _stream_target(action: Action, target: OperationTarget, facts: MappingFacts) -> OperationTarget:
    if target.group is not None:
        raise OperationRefused(
            "group", "a stream has no message groups; write a shard, or a shard and a lane"
        )
    if action in _WITHOUT_SHARD and (target.shard is not None or target.lane is not None):
        raise OperationRefused("shard", f"{action} is for a whole mapping; leave out shard and lane")
    if target.shard is None:
        if target.lane is not None:
            raise OperationRefused(
                "lane", f"each shard has lanes of its own; write the shard too; {_shards(facts)}"
            )
        return target
    if action is Action.SEEK and target.lane is not None:
        raise OperationRefused("lane", "a position is that of a whole shard; leave out lane")
    if target.lane is not None and target.lane >= facts.lanes and action is not Action.RESUME:
        # A lane may have been paused when there were more.
        there = "its only lane is 0" if facts.lanes == 1 else f"its lanes are 0 to {facts.lanes - 1}"
        raise OperationRefused("lane", f"there is no lane {target.lane}; {there}")
    try:
        return replace(target, shard=find_shard(target.shard, facts.shards))
    except UnknownTarget as unknown:
        raise OperationRefused("shard", str(unknown)) from unknown


def _check_skip(request: OperationRequest, facts: MappingFacts) -> None:
    target, records = request.target, request.members["records"]
    if request.members["send"] and not facts.destination:
        there = (
            "the queue has no dead-letter queue"
            if facts.queue
            else "the mapping has no on-failure destination"
        )
        raise OperationRefused("send", f'{there}; write "discard": true to drop the records')
    if facts.queue and records in (FIRST, BATCH) and target.group is None:
        remedy = (
            "write their group, as poller status shows it"
            if facts.fifo
            else "write the ids of the messages, as poller status shows them"
        )
        raise OperationRefused("records", f"a queue has many batches at once; {remedy}")
    if not facts.queue and target.shard is None and len(facts.shards) != 1:
        raise OperationRefused("shard", f"a skip is about one shard; write which one; {_shards(facts)}")


def _check_place(place: str, facts: MappingFacts) -> None:
    """Whether notices, or the messages of a queue, can be in such a place. Its plug-in knows the rest."""
    arn = Arn.read(place)
    queue = arn is not None and arn.service == "sqs"
    if facts.queue and not queue:
        remedy = "write the ARN of the dead-letter queue of the mapping's own queue"
    elif not queue and url_scheme(place) is None:
        remedy = "write the ARN of an on-failure queue, s3://BUCKET/PREFIX, or file:///DIRECTORY"
    else:
        return
    named = line_of(place, chars_max=NAME_CHARS_MAX)
    raise OperationRefused("from", f"{named!r} is no place that can be redriven; {remedy}")


def _wanted(action: Action, target: OperationTarget, facts: MappingFacts) -> tuple[str, ...]:
    if action is Action.RESUME or action in LONG:
        return ()
    there = _parts(action, target, facts)
    if len(there) > PARTS_MAX and action is Action.PAUSE:
        # It need not be split: that it holds is not confirmed, and so many pauses of one shard each may not be open.
        return ()
    if len(there) > PARTS_MAX:
        what = "workers" if facts.queue else "shards"
        remedy = "" if facts.queue else "; write one shard after the other"
        raise OperationRefused(
            "shard", f"the mapping has {len(there)} {what}, the limit is {PARTS_MAX}{remedy}"
        )
    return tuple(there)


def _parts(action: Action, target: OperationTarget, facts: MappingFacts) -> list[str]:
    if facts.queue:
        if action in _HELD and not facts.workers:
            raise OperationRefused("action", "no worker runs this mapping; start it, then ask again")
        return sorted(set(facts.workers))
    named = sorted(facts.shards) if target.shard is None else [target.shard]
    if action not in _HELD:
        return list(named)
    held = [shard for shard in named if facts.shards[shard] is not None]
    if not held and target.shard is not None:
        raise OperationRefused("shard", f"shard {target.shard} is not held by anybody; {_shards(facts)}")
    if not held:
        raise OperationRefused("shard", f"no shard of this mapping is held by anybody; {_shards(facts)}")
    return list(held)


def _notes(
    request: OperationRequest, facts: MappingFacts, open_operations: Sequence[Operation]
) -> dict[str, Any]:
    """What is known at once: the messages of a skip that has ids, the pauses that a resume ends, and how many lanes there are.

    Whoever holds a shard checks first whether the ids are those of records that are tried now.
    """
    if facts.queue and request.action is Action.SKIP and isinstance(request.members["records"], list):
        return {"records": list(request.members["records"])}
    if request.action is not Action.RESUME:
        return {} if request.target.lane is None else {pauses.LANES: facts.lanes}
    there = pauses.in_force(open_operations, facts.mapping)
    ended = [each.operation for each in there if request.target.covers(each.target)]
    if ended:
        return {"pauses": ended}
    wider = [each for each in there if each.target.covers(request.target)]
    if wider:
        what = pauses.described(wider[0].target)
        by = f" by {wider[0].by}" if wider[0].by else ""
        raise OperationRefused("action", f"{what} is paused{by}; resume {what} instead")
    others = [pauses.described(each.target) for each in there]
    there_is = f"paused are: {_several(others)}" if others else "nothing of this mapping is paused"
    raise OperationRefused("action", f"{pauses.described(request.target)} is not paused; {there_is}")


def _shards(facts: MappingFacts) -> str:
    names = [f"{shard} ({owner or 'held by nobody'})" for shard, owner in sorted(facts.shards.items())]
    return f"shards of this mapping: {_several(names) or 'none'}"


def _several(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN_MAX
    return ", ".join(texts[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
