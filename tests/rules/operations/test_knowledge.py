"""What is known of operations while answers arrive in any order: it only goes on."""

from dataclasses import replace

from poller.domain.operations import Action, Operation, OperationId, OperationRequest, OperationState
from poller.domain.records import Epoch, MappingId
from poller.rules.operations.knowledge import OperationKnowledge


def pause(name: str = "mine", *, revision: int = 0, created: float = 1.0) -> Operation:
    return Operation(
        operation=OperationId(name),
        mapping=MappingId("orders"),
        request=OperationRequest(action=Action.PAUSE),
        created=Epoch(created),
        revision=revision,
    )


def over(operation: Operation) -> Operation:
    return replace(operation, state=OperationState.DONE, revision=operation.revision + 1)


def read(knowledge: OperationKnowledge, *found: Operation) -> None:
    """A read that is answered at once."""
    number = knowledge.ask(everything=True)
    knowledge.answered(number)
    knowledge.read(found, asked=number)


def known(knowledge: OperationKnowledge) -> dict[str, int]:
    return {name: each.revision for name, each in (knowledge.operations or {}).items()}


def test_nothing_is_known_before_the_first_read_which_brings_what_was_learned_meanwhile() -> None:
    knowledge = OperationKnowledge()
    first = knowledge.ask(everything=True)
    knowledge.learn(pause(), asked=knowledge.ask())
    assert knowledge.operations is None
    knowledge.answered(first)
    knowledge.read([pause("other")], asked=first)
    assert known(knowledge) == {"other": 0, "mine": 0}


def test_an_older_revision_replaces_nothing() -> None:
    knowledge = OperationKnowledge()
    late = knowledge.ask()
    read(knowledge, pause(revision=3))
    knowledge.learn(pause(revision=1), asked=late)
    assert known(knowledge) == {"mine": 3}
    slow = knowledge.ask(everything=True)
    knowledge.learn(pause(revision=5), asked=knowledge.ask())
    knowledge.learn(pause(revision=4), asked=late)
    knowledge.read([pause(revision=3)], asked=slow)
    assert known(knowledge) == {"mine": 5}


def test_what_is_over_does_not_come_back_by_a_call_that_began_before() -> None:
    knowledge = OperationKnowledge()
    read(knowledge, pause())
    find, slow = knowledge.ask(), knowledge.ask(everything=True)
    knowledge.learn(over(pause()), asked=knowledge.ask())
    knowledge.learn(pause(), asked=find)
    assert known(knowledge) == {}
    knowledge.read([pause()], asked=slow)
    assert known(knowledge) == {}


def test_a_read_without_an_operation_that_was_known_says_that_it_is_over() -> None:
    knowledge = OperationKnowledge()
    read(knowledge, pause())
    find = knowledge.ask()
    read(knowledge)
    knowledge.learn(pause(revision=1), asked=find)
    assert known(knowledge) == {}


def test_a_later_call_is_believed() -> None:
    knowledge = OperationKnowledge()
    read(knowledge, pause())
    read(knowledge)
    read(knowledge, pause(revision=1))
    assert known(knowledge) == {"mine": 1}


def test_an_id_that_is_used_again_is_another_operation() -> None:
    knowledge = OperationKnowledge()
    read(knowledge, pause())
    find = knowledge.ask()
    knowledge.over(pause())
    knowledge.learn(pause(created=2.0), asked=find)
    knowledge.over(pause())
    assert known(knowledge) == {"mine": 0}


def test_an_end_is_remembered_only_while_an_older_call_is_not_answered() -> None:
    knowledge = OperationKnowledge()
    read(knowledge, pause("a"), pause("b"))
    slow = knowledge.ask()
    read(knowledge)
    assert len(knowledge._over) == 2
    knowledge.answered(slow)
    read(knowledge)
    assert knowledge._over == {}


def test_a_read_that_failed_and_one_that_was_overtaken_say_nothing() -> None:
    knowledge = OperationKnowledge()
    slow, failing = knowledge.ask(everything=True), knowledge.ask(everything=True)
    knowledge.read(None, asked=failing)
    assert knowledge.operations is None
    read(knowledge, pause())
    knowledge.read([], asked=slow)
    assert known(knowledge) == {"mine": 0}
