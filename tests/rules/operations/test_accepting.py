"""Which requests become operations, and what is said of those that do not."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.operations import Action, Operation, OperationId, OperationState, OperationTarget
from poller.domain.records import Epoch, ShardId, WorkerId
from poller.rules.operations import lifecycle, pauses
from poller.rules.operations.accepting import OPEN_MAX, RESUMES_MAX, MappingFacts, accept, repeated
from poller.rules.operations.lifecycle import PARTS_MAX
from poller.rules.operations.members import ACTION_MEMBERS
from poller.rules.operations.reading import OperationRefused, read_request
from tests.rules.operations.build import (
    ANN,
    BOB,
    FIFO,
    MAILS,
    NOW,
    ONE,
    ORDERS,
    QUEUE,
    STREAM,
    THREE,
    TWO,
    accepted,
)

SKIP = {"action": "skip", "shard": ONE, "records": "first"}


def refusal(document: Any, facts: MappingFacts = STREAM, **more: Any) -> OperationRefused:
    with pytest.raises(OperationRefused) as caught:
        accepted(document, facts, **more)
    return caught.value


@pytest.mark.parametrize(
    ("document", "facts", "target", "wanted"),
    [
        ({"action": "retry"}, STREAM, OperationTarget(), (ONE, TWO)),
        ({"action": "retry", "shard": ONE}, STREAM, OperationTarget(shard=ONE), (ONE,)),
        ({"action": "retry", "shard": "2"}, STREAM, OperationTarget(shard=TWO), (TWO,)),
        ({"action": "reset", "shard": "2", "lane": 3}, STREAM, OperationTarget(shard=TWO, lane=3), (TWO,)),
        ({"action": "pause"}, STREAM, OperationTarget(), (ONE, TWO, THREE)),
        ({"action": "pause", "shard": "3"}, STREAM, OperationTarget(shard=THREE), (THREE,)),
        ({"action": "pause"}, MappingFacts(mapping=ORDERS, queue=False), OperationTarget(), ()),
        (SKIP, STREAM, OperationTarget(shard=ONE), (ONE,)),
        ({"action": "skip", "records": "batch"}, replace(STREAM, shards={TWO: BOB}), OperationTarget(), (TWO,)),
        ({"action": "retry"}, QUEUE, OperationTarget(), (ANN, BOB)),
        ({"action": "retry", "group": "g/1"}, FIFO, OperationTarget(group="g/1"), (ANN, BOB)),
        ({"action": "pause"}, replace(QUEUE, workers=()), OperationTarget(), ()),
        ({"action": "skip", "group": "g", "records": "first"}, FIFO, OperationTarget(group="g"), (ANN, BOB)),
        ({"action": "skip", "records": ["m-1"]}, QUEUE, OperationTarget(), (ANN, BOB)),
    ],
)  # fmt: skip
def test_the_parts_are_fixed_when_an_operation_is_accepted(
    document: Any, facts: MappingFacts, target: OperationTarget, wanted: tuple[str, ...]
) -> None:
    operation = accepted(document, facts)
    assert (operation.request.target, operation.wanted) == (target, wanted)
    assert (operation.state, operation.parts, operation.created) == (OperationState.ACCEPTED, {}, NOW)
    assert (operation.mapping, operation.by) == (facts.mapping, "carol")


@pytest.mark.parametrize(
    ("document", "facts", "member", "said"),
    [
        ([], STREAM, "action", 'write {"action": "retry"}'),
        ({}, STREAM, "action", "null is no action; write one of retry, reset, skip, pause, resume"),
        ({"action": "Retry"}, STREAM, "action", "'Retry' is no action"),
        ({"action": ["retry"]}, STREAM, "action", "a list is no action"),
        ({"action": "retry", "records": "first"}, STREAM, "records", "retry has no member 'records'; its members are action, id, reason, shard, lane, group"),
        ({"action": "retry", 7: 1}, STREAM, "7", "retry has no member"),
        ({"action": "retry", "shard": 1}, STREAM, "shard", "1 cannot be used; write a text of 1 to 128 characters"),
        ({"action": "retry", "shard": "9"}, STREAM, "shard", f"'9' is no shard of this mapping; its shards: {ONE}, {TWO}, {THREE}"),
        ({"action": "retry", "shard": "3"}, STREAM, "shard", f"shard {THREE} is not held by anybody; shards of this mapping: {ONE} (ann), {TWO} (bob), {THREE} (held by nobody)"),
        ({"action": "reset"}, replace(STREAM, shards={ONE: None}), "shard", f"no shard of this mapping is held by anybody; shards of this mapping: {ONE} (held by nobody)"),
        ({"action": "retry", "shard": "1", "lane": 4}, STREAM, "lane", "there is no lane 4; its lanes are 0 to 3"),
        ({"action": "retry", "shard": "1", "lane": 1}, replace(STREAM, lanes=1), "lane", "its only lane is 0"),
        ({"action": "retry", "shard": "1", "lane": True}, STREAM, "lane", "true cannot be used; write a whole number from 0 to 9"),
        ({"action": "retry", "lane": 1}, STREAM, "lane", "write the shard too"),
        ({"action": "pause", "group": "g"}, STREAM, "group", "a stream has no message groups"),
        ({"action": "skip", "records": "first"}, STREAM, "shard", "a skip is about one shard; write which one"),
        ({"action": "skip", "shard": "1"}, STREAM, "records", 'it is missing; write "first", "batch", or a list'),
        ({**SKIP, "records": []}, STREAM, "records", "a list cannot be used; write a list of 1 to 1000 ids"),
        ({**SKIP, "records": ["1"] * 1001}, STREAM, "records", "write a list of 1 to 1000 ids"),
        ({**SKIP, "records": [1]}, STREAM, "records", "ASCII, no blanks"),
        ({**SKIP, "records": ["1" * 129]}, STREAM, "records", "1 to 128 characters"),
        ({**SKIP, "send": "yes"}, STREAM, "send", "'yes' cannot be used; write true or false"),
        ({**SKIP, "send": False}, STREAM, "send", 'add "discard": true'),
        ({**SKIP, "send": True, "discard": True}, STREAM, "discard", "leave out send or discard"),
        ({**SKIP, "batch_first": "5", "batch_count": 2}, STREAM, "batch_first", 'it is for "records": "batch" only; leave it out'),
        ({**SKIP, "records": ["5"], "batch_count": 2}, STREAM, "batch_count", "leave it out"),
        ({**SKIP, "records": "batch", "batch_first": "5"}, STREAM, "batch_first", "write batch_first and batch_count, or none of them"),
        ({**SKIP, "records": "batch", "batch_count": 2}, STREAM, "batch_count", "write batch_first and batch_count, or none of them"),
        ({**SKIP, "records": "batch", "batch_first": "5", "batch_count": 0}, STREAM, "batch_count", "write a whole number from 1"),
        ({**SKIP, "records": "batch", "batch_first": "5 6", "batch_count": 2}, STREAM, "batch_first", "ASCII, no blanks"),
        (SKIP, replace(STREAM, destination=False), "send", 'the mapping has no on-failure destination; write "discard": true'),
        ({"action": "skip", "records": ["m"]}, replace(QUEUE, destination=False), "send", "the queue has no dead-letter queue"),
        ({"action": "skip", "records": "first"}, QUEUE, "records", "write the ids of the messages"),
        ({"action": "skip", "records": "batch"}, FIFO, "records", "write their group"),
        ({"action": "reset"}, QUEUE, "action", "SQS itself counts receives"),
        ({"action": "retry", "shard": "1"}, QUEUE, "shard", "a queue has no shards"),
        ({"action": "retry", "lane": 0}, FIFO, "lane", "a queue has no lanes"),
        ({"action": "pause", "group": "g"}, QUEUE, "group", "only a FIFO queue can be addressed by group"),
        ({"action": "retry"}, replace(QUEUE, workers=()), "action", "no worker runs this mapping; start it"),
        ({"action": "retry", "reason": 5}, STREAM, "reason", "5 is no text; write why"),
        ({"action": "retry", "id": "a b"}, STREAM, "id", "letters, digits, dots, colons, hyphens or underscores"),
        ({"action": "retry", "id": "."}, STREAM, "id", "no dot first"),
        ({"action": "retry", "id": ".."}, STREAM, "id", "no dot first"),
        ({"action": "retry", "id": "x" * 129}, STREAM, "id", "write 1 to 128"),
        ({"action": "resume"}, STREAM, "action", "the whole mapping is not paused; nothing of this mapping is paused"),
        *(({"action": "redrive", "from": place}, STREAM, "from", "write the ARN of an on-failure queue, s3://BUCKET/PREFIX, or file:///DIRECTORY")
          for place in ("x", "s3://", "file:dir", "/var/failed", "arn:aws:s3:::bucket", "arn:aws:sns:eu-west-1:111122223333:topic", "arn:aws:kinesis:eu-west-1:111122223333:stream/orders", "arn:aws:sqs")),
        *(({"action": "redrive", "from": place}, QUEUE, "from", "write the ARN of the dead-letter queue of the mapping's own queue")
          for place in ("x", "s3://bucket/", "file:///var/failed", "arn:aws:sns:eu-west-1:111122223333:topic")),
        *(({"action": action, **members, name: value}, STREAM, name, "write a number from 0.001 to 1000000")
          for action, members, name in (("redrive", {"from": "s3://b/"}, "messages_per_s"), ("replay", {"from": 0, "to": "LATEST"}, "records_per_s"))
          for value in (0, -1, 5e-324, 1e-300, 0.0009, 1_000_001, 1e300, float("nan"), float("inf"), "5", True, [1])),
    ],
)  # fmt: skip
def test_a_refusal_names_the_member_and_the_remedy(
    document: Any, facts: MappingFacts, member: str, said: str
) -> None:
    refused = refusal(document, facts)
    assert refused.member == member
    assert said in refused.text
    assert not refused.conflict


@pytest.mark.parametrize(
    ("given", "destination", "send"),
    [
        ({}, True, True),
        ({"send": True}, True, True),
        ({"send": True, "discard": False}, True, True),
        ({"discard": True}, True, False),
        ({"discard": True}, False, False),
        ({"discard": True, "send": False}, False, False),
        ({"send": None, "discard": True}, False, False),
    ],
)
def test_a_skip_says_whether_its_records_are_sent(given: Any, destination: bool, send: bool) -> None:
    operation = accepted({**SKIP, **given}, replace(STREAM, destination=destination))
    assert operation.request.members == {"records": "first", "send": send, "discard": not send}


def test_the_ids_of_a_skip_are_known_at_once_and_those_of_its_first_record_are_not() -> None:
    assert accepted(SKIP).notes == {}
    asked = {"action": "skip", "records": ["9", "8", "9"]}
    assert accepted(asked, QUEUE).notes == {"records": ["9", "8"]}
    assert accepted({**asked, "shard": ONE}).notes == {}
    assert accepted({**asked, "shard": ONE, "lane": 1}).notes == {"lanes": STREAM.lanes}


def test_a_lane_that_is_gone_can_be_resumed() -> None:
    lane = {"shard": ONE, "lane": 5}
    pause = accepted({"action": "pause", **lane}, replace(STREAM, lanes=10))
    asked = {"action": "resume", **lane}
    assert accepted(asked, replace(STREAM, lanes=2), others=(pause,)).notes == {"pauses": [pause.operation]}


def test_a_reason_is_cleaned_and_cut() -> None:
    reason = accepted({"action": "retry", "reason": " a\nb\x1b[31m" + "x" * 900}).request.reason
    assert reason.startswith("a bx")
    assert len(reason) <= 500


def test_more_shards_than_one_operation_has_parts_are_refused() -> None:
    many = replace(STREAM, shards={ShardId(f"s-{number:04}"): ANN for number in range(PARTS_MAX + 1)})
    assert "write one shard after the other" in refusal({"action": "retry"}, many).text
    assert accepted({"action": "retry", "shard": "s-0007"}, many).wanted == ("s-0007",)


@pytest.mark.parametrize("facts", [STREAM, QUEUE])
def test_a_pause_of_more_parts_than_one_operation_has_is_in_force_without_them(facts: MappingFacts) -> None:
    names = [f"s-{number:04}" for number in range(PARTS_MAX + 1)]
    many = replace(facts, shards=dict.fromkeys(map(ShardId, names), ANN), workers=list(map(WorkerId, names)))
    pause = accepted({"action": "pause"}, many)
    assert pause.wanted == ()
    assert [each.operation for each in pauses.in_force([pause], facts.mapping)] == [pause.operation]
    assert accepted({"action": "resume"}, many, others=(pause,)).notes == {"pauses": [pause.operation]}


@pytest.mark.parametrize(
    ("document", "open_max"),
    [
        ({"action": "retry"}, OPEN_MAX),
        ({"action": "pause"}, OPEN_MAX),
        ({"action": "reset"}, OPEN_MAX),
        (SKIP, OPEN_MAX),
        ({"action": "seek", "to": "LATEST"}, OPEN_MAX),
        ({"action": "resume"}, OPEN_MAX + RESUMES_MAX),
    ],
)
def test_there_is_a_limit_of_operations_that_are_not_over_and_pauses_can_still_be_ended(
    document: Any, open_max: int
) -> None:
    paused = (accepted({"action": "pause"}),) * open_max
    refused = refusal(document, others=paused)
    assert refused.conflict
    assert "wait for them, cancel some, or resume what is paused" in refused.text
    assert accepted(document, others=paused[1:]).request.action == document["action"]


@pytest.mark.parametrize(
    "repeat", [{}, {"shard": "1"}, {"send": True}, {"discard": False, "reason": "", "group": None}]
)
def test_the_same_id_with_the_same_content_is_the_same_operation(repeat: Any) -> None:
    document = {**SKIP, "id": "mine"}
    stored = lifecycle.cancel(accepted(document), by="dave", now=NOW)
    assert stored.operation == "mine"
    assert repeated(stored, ORDERS, read_request({**document, **repeat})) is stored


def test_the_number_of_another_shard_is_no_ending_of_the_stored_one() -> None:
    shards = {ShardId(f"shardId-{number:012}"): None for number in (2, 12)}
    facts = MappingFacts(mapping=ORDERS, queue=False, shards=shards)
    asked = read_request({"action": "pause", "shard": "12", "id": "mine"})
    stored = accept(asked, facts, operation=OperationId("x"), by="dave", now=NOW)
    with pytest.raises(OperationRefused, match="write another id, or none"):
        repeated(stored, ORDERS, read_request({"action": "pause", "shard": "2", "id": "mine"}))


@pytest.mark.parametrize(
    "other", [{"shard": "2"}, {"shard": None}, {"records": "batch"}, {"reason": "other"}, {"discard": True}, {"lane": 1}]
)  # fmt: skip
def test_the_same_id_with_other_content_is_a_conflict(other: Any) -> None:
    document = {**SKIP, "id": "mine"}
    with pytest.raises(OperationRefused, match="write another id, or none") as caught:
        repeated(accepted(document), ORDERS, read_request({**document, **other}))
    assert (caught.value.member, caught.value.conflict) == ("id", True)
    with pytest.raises(OperationRefused):
        repeated(accepted(document), MAILS, read_request(document))


def paused(name: str, mapping_facts: MappingFacts = STREAM, **target: Any) -> Operation:
    return accepted({"action": "pause", **target}, mapping_facts, name=name)


@pytest.mark.parametrize(
    ("target", "ended"),
    [
        ({}, ["all", "lane", "shard"]),
        ({"shard": "1"}, ["lane", "shard"]),
        ({"shard": "1", "lane": 2}, ["lane"]),
    ],
)
def test_a_resume_ends_the_pauses_that_its_target_covers(target: Any, ended: list[str]) -> None:
    there = (
        paused("all"),
        paused("lane", shard="1", lane=2),
        paused("shard", shard="1"),
        paused("mails", QUEUE),
    )
    operation = accepted({"action": "resume", **target}, others=there)
    assert (operation.notes, operation.wanted) == ({"pauses": ended}, ())


def test_a_wider_pause_is_not_ended_by_resuming_a_part() -> None:
    refused = refusal({"action": "resume", "shard": "1"}, others=(paused("all"),))
    assert refused.text == "the whole mapping is paused by carol; resume the whole mapping instead"
    refused = refusal({"action": "resume", "shard": "1", "lane": 2}, others=(paused("shard", shard="1"),))
    assert refused.text == f"shard {ONE} is paused by carol; resume shard {ONE} instead"


def test_a_resume_of_what_is_not_paused_says_what_is() -> None:
    refused = refusal({"action": "resume", "shard": "1"}, others=(paused("other", shard="2", lane=1),))
    assert refused.text == f"shard {ONE} is not paused; paused are: lane 1 of shard {TWO}"


@pytest.mark.parametrize(
    ("document", "members"),
    [
        ({"action": "seek", "to": "TRIM_HORIZON"}, {"to": "TRIM_HORIZON"}),
        ({"action": "seek", "to": "49590338271490256608559692538361571095921575989136588898", "shards": ["a", "b", "a"]}, {"to": "49590338271490256608559692538361571095921575989136588898", "shards": ["a", "b"]}),
        ({"action": "seek", "to": "2026-01-31T08:00:00Z", "skip": True, "dry_run": False}, {"to": "2026-01-31T08:00:00Z", "skip": True, "dry_run": False}),
        ({"action": "seek", "to": 1_700_000_000}, {"to": 1_700_000_000.0}),
        ({"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST", "records_per_s": 5, "on_failure": "skip", "function": " ship "}, {"from": "TRIM_HORIZON", "to": "LATEST", "records_per_s": 5.0, "on_failure": "skip", "function": "ship"}),
        ({"action": "redrive", "from": "file:///var/failed", "limit": 3, "messages_per_s": 0.5, "dry_run": True}, {"from": "file:///var/failed", "limit": 3, "messages_per_s": 0.5, "dry_run": True}),
    ],
)  # fmt: skip
def test_members_of_the_long_actions_are_read(document: Any, members: Any) -> None:
    assert read_request(document).request.members == members


@pytest.mark.parametrize(
    ("document", "member"),
    [
        ({"action": "seek"}, "to"),
        ({"action": "seek", "to": "yesterday"}, "to"),
        ({"action": "seek", "to": True}, "to"),
        ({"action": "seek", "to": -1}, "to"),
        ({"action": "seek", "to": float("nan")}, "to"),
        ({"action": "seek", "to": "LATEST", "shards": "all"}, "shards"),
        ({"action": "replay", "from": "LATEST"}, "to"),
        ({"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST", "records_per_s": 0}, "records_per_s"),
        ({"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST", "filter": {}}, "filter"),
        ({"action": "redrive"}, "from"),
        ({"action": "redrive", "from": "x" * 3000}, "from"),
        ({"action": "redrive", "from": "a\x1b[31m"}, "from"),
        ({"action": "redrive", "from": "https://user:secret@sqs.eu-west-1.amazonaws.com/failed"}, "from"),
        ({"action": "redrive", "from": "s3://key@bucket/p"}, "from"),
        ({"action": "redrive", "from": "s3://b/p", "limit": 0}, "limit"),
        ({"action": "redrive", "from": "s3://b/p", "limit": True}, "limit"),
        ({"action": "redrive", "from": "s3://b/p", "messages_per_s": float("inf")}, "messages_per_s"),
    ],
)  # fmt: skip
def test_wrong_members_of_the_long_actions_are_refused(document: Any, member: str) -> None:
    with pytest.raises(OperationRefused) as caught:
        read_request(document)
    assert caught.value.member == member


def test_every_action_has_its_members_in_the_table() -> None:
    assert set(ACTION_MEMBERS) == set(Action)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    sorted(
        {
            "id",
            "reason",
            "shard",
            "lane",
            "group",
            *(name for each in ACTION_MEMBERS.values() for name in each),
        }
    )
)
DOCUMENTS = st.builds(
    lambda action, members: {"action": action, **members},
    st.sampled_from([*Action, "other"]),
    st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=5),
)


@given(DOCUMENTS | VALUES, st.sampled_from([STREAM, QUEUE, FIFO]))
def test_any_document_is_an_operation_of_plain_json_or_a_short_refusal(
    document: Any, facts: MappingFacts
) -> None:
    try:
        asked = read_request(document)
        operation = accept(asked, facts, operation=OperationId("made"), by="carol", now=Epoch(5))
    except OperationRefused as error:
        refused = error
    else:
        members, notes = operation.request.members, operation.notes
        assert json.loads(json.dumps([members, notes], allow_nan=False)) == [members, notes]
        assert repeated(operation, facts.mapping, asked) is operation
        return
    assert refused.member
    assert 0 < len(refused.text) < 2000
    assert refused.text.isprintable()
