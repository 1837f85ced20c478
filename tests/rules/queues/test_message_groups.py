"""Order within message groups: one batch in flight, nothing before what failed."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.policies import BatchPolicy
from poller.domain.records import Message, Monotonic
from poller.rules.queues.message_groups import Choice, Groups, GroupState, choose, with_followers
from poller.rules.queues.receive_batch import QueueItem
from tests.rules.build import ENCODER

TEN = BatchPolicy(10, 0.0)


def letter(name: str, *, size: int = 1) -> QueueItem:
    """Named by its group and a number; a name without a group is in lower case digits only."""
    group = name[0] if name[0].isalpha() else ""
    return QueueItem.encoded_as(
        b"x" * size, Message(name, "r", "", {}, {}, "", Monotonic(0.0), group=group or None), ENCODER
    )


def queue_items(*names: str) -> list[QueueItem]:
    return [letter(name) for name in names]


def names(found: Sequence[QueueItem]) -> list[str]:
    return [each.message_id for each in found]


def entered(groups: Groups, owner: int, *members: str) -> list[QueueItem]:
    found = queue_items(*members)
    groups.enter(owner, Counter(each.group for each in found if each.group))
    return found


def chosen(
    groups: Groups,
    owner: int,
    found: Sequence[QueueItem],
    policy: BatchPolicy = TEN,
    *,
    one_group: bool = False,
) -> Choice:
    return choose(found, lambda group: groups.state(owner, group), policy, one_group=one_group)


def run(groups: Groups, owner: int, *members: str) -> None:
    for name in members:
        groups.start(owner, name[0])


def settle(groups: Groups, owner: int, *members: str, done: bool, started: bool = True) -> None:
    for name in members:
        groups.settle(owner, name[0], started=started, done=done)


def test_a_batch_mixes_groups() -> None:
    groups = Groups()
    found = entered(groups, 1, "a1", "b1", "a2")
    assert names(chosen(groups, 1, found).chunk) == ["a1", "b1", "a2"]


def test_a_batch_of_one_group_leaves_the_others_for_later() -> None:
    groups = Groups()
    found = entered(groups, 1, "a1", "b1", "a2", "c1")
    first = chosen(groups, 1, found, one_group=True)
    assert (names(first.chunk), names(first.rest)) == (["a1", "a2"], ["b1", "c1"])
    run(groups, 1, "a1", "a2")
    assert names(chosen(groups, 1, first.rest, one_group=True).chunk) == ["b1"]


def test_messages_of_a_standard_queue_are_always_ready() -> None:
    found = queue_items("1", "2", "3")
    assert names(chosen(Groups(), 1, found, BatchPolicy(2, 0.0)).chunk) == ["1", "2"]


def test_a_second_event_of_a_group_waits_until_the_first_is_deleted() -> None:
    groups = Groups()
    found = entered(groups, 1, "a1", "a2")
    first = chosen(groups, 1, found, BatchPolicy(1, 0.0))
    run(groups, 1, "a1")
    assert chosen(groups, 1, first.rest).chunk == ()
    settle(groups, 1, "a1", done=True)
    assert names(chosen(groups, 1, first.rest).chunk) == ["a2"]


def test_what_was_received_behind_a_failed_message_is_blocked() -> None:
    groups = Groups()
    found = entered(groups, 1, "a1", "b1", "a2")
    run(groups, 1, "a1", "b1")
    settle(groups, 1, "a1", done=False)
    left = chosen(groups, 1, found[2:])
    assert (left.chunk, names(left.blocked)) == ((), ["a2"])


def test_another_owner_waits_for_the_group_and_runs_what_is_ready() -> None:
    groups = Groups()
    entered(groups, 1, "a1")
    run(groups, 1, "a1")
    later = entered(groups, 2, "a2", "b1")
    choice = chosen(groups, 2, later)
    assert (names(choice.chunk), names(choice.rest)) == (["b1"], ["a2"])
    settle(groups, 1, "a1", done=True)
    assert names(chosen(groups, 2, choice.rest).chunk) == ["a2"]


def test_a_failure_blocks_every_later_batch_of_the_group() -> None:
    groups = Groups()
    entered(groups, 1, "a1")
    entered(groups, 2, "a2")
    entered(groups, 3, "a3", "b1")
    run(groups, 1, "a1")
    settle(groups, 1, "a1", done=False)
    assert groups.state(2, "a") is GroupState.BLOCKED
    assert groups.state(3, "a") is GroupState.BLOCKED
    assert groups.state(3, "b") is GroupState.READY


def test_a_message_that_lapsed_before_it_ran_blocks_what_is_behind_it() -> None:
    groups = Groups()
    entered(groups, 1, "a1", "a2")
    settle(groups, 1, "a1", done=False, started=False)
    assert groups.blocked(1, "a")


def test_the_last_message_of_a_batch_that_lapsed_blocks_only_later_batches() -> None:
    groups = Groups()
    entered(groups, 1, "a1", "a2")
    entered(groups, 2, "a3")
    groups.settle(1, "a", started=False, done=False, last=True)
    assert groups.state(1, "a") is GroupState.READY
    assert groups.state(2, "a") is GroupState.BLOCKED


def test_what_comes_again_while_a_blocked_batch_is_here_is_not_blocked_with_it() -> None:
    groups = Groups()
    entered(groups, 1, "a1")
    entered(groups, 2, "a2")
    settle(groups, 1, "a1", done=False, started=False)
    again = entered(groups, 3, "a1")
    assert names(chosen(groups, 3, again).rest) == ["a1"]
    settle(groups, 2, "a2", done=False, started=False)
    assert names(chosen(groups, 3, again).chunk) == ["a1"]


def test_what_is_received_behind_a_blocked_message_is_too_early() -> None:
    groups = Groups()
    entered(groups, 1, "a1", "b1")
    entered(groups, 2, "a2")
    settle(groups, 1, "a1", done=False, started=False)
    found = [each.message for each in queue_items("a1", "b1", "a2", "b2", "a3", "4")]
    assert groups.too_early(found, {"a1", "b2", "a3", "4"}) == {"a3"}


def test_a_settled_group_is_forgotten() -> None:
    groups = Groups()
    entered(groups, 1, "a1", "a2")
    run(groups, 1, "a1", "a2")
    settle(groups, 1, "a1", done=True)
    settle(groups, 1, "a2", done=False)
    assert len(groups) == 0


@pytest.mark.parametrize(
    ("groups", "failed", "expected"),
    [
        (["a", "b", "a", "b"], {0}, {0, 2}),
        (["a", "b", "a", "b"], {2}, {2}),
        (["a", "a", "a"], {1}, {1, 2}),
        (["a", "b", "c"], {1}, {1}),
        ([None, None, None], {1}, {1}),
        (["a", "b", "a"], set(), set()),
    ],
)
def test_later_messages_of_a_reported_group_count_as_failed(
    groups: list[str | None], failed: set[int], expected: set[int]
) -> None:
    assert with_followers(groups, failed) == expected


@st.composite
def receives(draw: st.DrawFn) -> list[list[str]]:
    """What several owners received, one after the other; numbers grow within each group."""
    numbers: Counter[str] = Counter()
    found: list[list[str]] = []
    for _ in range(draw(st.integers(1, 5))):
        batch = []
        for group in draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=6)):
            numbers[group] += 1
            batch.append(f"{group}{numbers[group]:02d}")
        found.append(batch)
    return found


@given(batches=receives(), chance=st.randoms(use_true_random=False), one_group=st.booleans())
def test_groups_run_in_order_one_event_at_a_time_and_stop_at_a_failure(
    batches: list[list[str]], chance: Random, one_group: bool
) -> None:
    groups = Groups()
    pending = {owner: entered(groups, owner, *batch) for owner, batch in enumerate(batches)}
    running: list[tuple[int, QueueItem]] = []
    last: dict[str, str] = {}
    failed: dict[str, str] = {}
    policy = BatchPolicy(chance.randint(1, 4), 0.0)
    while any(pending.values()) or running:
        owner = chance.choice(sorted(pending))
        choice = chosen(groups, owner, pending[owner], policy, one_group=one_group)
        for blocked in choice.blocked:
            assert blocked.message_id > failed[blocked.message_id[0]]
            groups.settle(owner, blocked.message_id[0], started=False, done=False)
        pending[owner] = list(choice.rest)
        busy = {each.group for _, each in running}
        assert not busy & {each.group for each in choice.chunk}
        for each in choice.chunk:
            group = each.message_id[0]
            assert each.message_id > last.get(group, "")
            assert group not in failed
            last[group] = each.message_id
            groups.start(owner, group)
            running.append((owner, each))
        if running and chance.random() < 0.5:
            whose, each = running.pop(chance.randrange(len(running)))
            group = each.message_id[0]
            done = chance.random() < 0.5
            groups.settle(whose, group, started=True, done=done)
            if not done and any(other.message_id[0] == group for left in pending.values() for other in left):
                failed[group] = min(failed.get(group, "z"), each.message_id)
    assert len(groups) == 0
