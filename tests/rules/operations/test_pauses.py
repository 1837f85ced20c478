"""Which pauses are in force."""

import pytest

from poller.domain.operations import OperationTarget
from poller.domain.records import Epoch
from poller.rules.operations import lifecycle, pauses
from tests.rules.operations.build import FIFO, MAILS, NOW, ONE, ORDERS, STREAM, TWO, accepted

WHOLE = accepted({"action": "pause", "reason": "deploy"}, name="whole", now=Epoch(NOW + 9))
LANE = accepted({"action": "pause", "shard": "1", "lane": 2}, name="lane")
GROUP = accepted({"action": "pause", "group": "g"}, FIFO, name="group")


def test_pauses_in_force_are_those_that_are_not_over_oldest_first() -> None:
    over = lifecycle.end_pause(accepted({"action": "pause"}, name="over"), by="dave", now=NOW)
    retry = accepted({"action": "retry"}, name="retry")
    found = pauses.in_force([WHOLE, over, retry, GROUP, LANE], ORDERS)
    assert [each.operation for each in found] == ["lane", "whole"]
    assert (found[1].by, found[1].since, found[1].reason) == ("carol", NOW + 9, "deploy")
    assert [each.operation for each in pauses.in_force([WHOLE, GROUP], MAILS)] == ["group"]


@pytest.mark.parametrize(
    ("target", "holding"),
    [
        (OperationTarget(shard=ONE, lane=2), "lane"),
        (OperationTarget(shard=ONE, lane=1), None),
        (OperationTarget(shard=ONE), None),
        (OperationTarget(shard=TWO, lane=2), None),
    ],
)
def test_a_pause_holds_what_its_target_covers(target: OperationTarget, holding: str | None) -> None:
    found = pauses.holding(pauses.in_force([LANE], ORDERS), target)
    assert (found.operation if found else None) == holding
    assert pauses.holding(pauses.in_force([LANE, WHOLE], ORDERS), target) is not None


def test_a_resume_ends_what_was_paused_when_it_was_accepted_and_no_later_pause() -> None:
    resume = accepted({"action": "resume"}, STREAM, name="resume", others=(LANE, WHOLE))
    later = accepted({"action": "pause"}, name="later")
    assert pauses.still_to_end(resume, [LANE, WHOLE, later, GROUP]) == (LANE, WHOLE)
    ended = lifecycle.end_pause(LANE, by=resume.by, now=NOW)
    assert pauses.still_to_end(resume, [ended, WHOLE, later]) == (WHOLE,)
    assert pauses.still_to_end(resume, [later]) == ()
