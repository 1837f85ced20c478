"""Each action of operators is seen in each of its states on each kind of source, in drawn worlds or in worlds made for it; what was cancelled had no effect."""

from collections.abc import Iterator, Sequence

import pytest

from poller.domain.operations import Action, OperationState
from tests.simulation import test_replays
from tests.simulation.services.faults import Marks
from tests.simulation.sweep import SOMETIMES
from tests.simulation.worlds.operation_states import Case, Obstacle, Source, Way, run_case
from tests.simulation.worlds.operation_stories import STORIES
from tests.simulation.worlds.world import Failed

type Combination = tuple[Source, Action, OperationState]

QUEUES = (Source.STANDARD, Source.FIFO)
EVERYWHERE, ALWAYS = tuple(Source), tuple(OperationState)
NEVER: tuple[tuple[Sequence[Source], Action, Sequence[OperationState], str], ...] = (
    (EVERYWHERE, Action.PAUSE, (OperationState.FAILED,), "it waits for its parts as long as it lasts, and is done when its mapping is deleted"),
    (EVERYWHERE, Action.PAUSE, (OperationState.CANCELLED,), "to cancel a pause is to end it, so that it is done"),
    (EVERYWHERE, Action.RESUME, (OperationState.RUNNING,), "it has no parts: any worker ends the pauses, and then the resume"),
    (QUEUES, Action.RESET, ALWAYS, "refused of a queue: SQS itself counts receives and age"),
    (QUEUES, Action.SEEK, ALWAYS, "refused of a queue, which has no positions"),
    (QUEUES, Action.REPLAY, ALWAYS, "refused of a queue, which has no positions"),
)  # fmt: skip
"""What cannot be seen: on which sources, which action, in which states, and why."""
CASES = (
    *(Case(each, action, Way.DONE) for each in QUEUES for action in (Action.RETRY, Action.SKIP, Action.RESUME)),
    *(Case(each, action, Way.FAILED) for each in QUEUES for action in (Action.RETRY, Action.SKIP, Action.RESUME)),
    *(Case(Source.STREAM, action, Way.FAILED) for action in (Action.RETRY, Action.RESET, Action.RESUME)),
    *(Case(each, action, Way.UNTAKEN) for each in Source for action in (Action.PAUSE, Action.RESUME)),
    *(Case(each, action, Way.UNTAKEN) for each in QUEUES for action in (Action.RETRY, Action.SKIP)),
    *(
        Case(Source.STREAM, action, Way.UNTAKEN, obstacle)
        for action in (Action.RETRY, Action.RESET, Action.SKIP)
        for obstacle in Obstacle
    ),
    *(Case(each, action, Way.BEGUN) for each in Source for action in (Action.RETRY, Action.SKIP)),
    Case(Source.STREAM, Action.RESET, Way.BEGUN),
)  # fmt: skip


def combinations() -> Iterator[Combination]:
    """All that one could think of."""
    for source in Source:
        for action in Action:
            for state in OperationState:
                yield source, action, state


def drawn() -> set[Combination]:
    """What each sweep over drawn worlds, and each run of those with replays, sees or fails. Their operators retry, reset, skip and pause on streams."""
    marks = {*SOMETIMES, *test_replays.SOMETIMES}
    return {
        (source, action, state)
        for source, action, state in combinations()
        if f"{source}: {action} {state}" in marks
        or (
            source is Source.STREAM
            and action is not Action.REDRIVE
            and f"operation: {action} {state}" in marks
        )
    }


def never() -> set[Combination]:
    """What cannot be seen."""
    return {
        (source, action, state)
        for sources, action, states, _ in NEVER
        for source in sources
        for state in states
    }


def seen(cases: Sequence[Case]) -> set[Combination]:
    """What the worlds of these cases show. Raises Failed for the first in which something is not as it must be."""
    marks = Marks()
    for case in cases:
        try:
            marks.update(run_case(case, STORIES[case.way]).marks)
        except Failed as failure:
            failure.add_note(f"in the world where the {case}")
            raise
    return {each for each in combinations() if marks["{}: {} {}".format(*each)]}


@pytest.mark.parametrize("source", Source, ids=str)
def test_each_action_is_seen_in_each_state_and_what_is_cancelled_has_no_effect(source: Source) -> None:
    here = seen([case for case in CASES if case.source is source])
    there, impossible = drawn(), never()
    assert {each for each in combinations() if each[0] is source} - here - there - impossible == set()
    assert (here | there) & impossible == set()
