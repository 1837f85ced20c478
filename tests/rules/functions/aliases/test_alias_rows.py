"""Facts of what the row of a function keeps of its versions and aliases, and for how long."""

from poller.domain.functions.versions import VERSIONS_MAX, AliasPlan, VersionPlan
from poller.domain.plan import FunctionPlan
from poller.domain.records import Epoch
from poller.rules.functions.aliases.alias_state import RAN_MAX, AliasState, FunctionState

FILE = AliasPlan(version="1")


def function(*versions: int, aliases: tuple[str, ...] = ()) -> FunctionPlan:
    numbers = [str(each) for each in versions]
    return FunctionPlan(
        name="orders",
        invoker="python",
        versions={each: VersionPlan(number=each, invoker="python") for each in numbers},
        aliases=dict.fromkeys(aliases, FILE),
    )


def kept(modified: int, file: AliasPlan | None = FILE) -> AliasState:
    return AliasState(version="1", revision_id="a", modified=Epoch(modified), file=file)


def test_the_smallest_numbers_are_forgotten_first_except_for_configured_ones() -> None:
    state, plan = FunctionState(), function(1, RAN_MAX + 3)
    for number in range(1, RAN_MAX + 4):
        state = state.with_run(str(number), "print", plan)
    assert len(state.ran) == RAN_MAX
    assert state.ran.keys() == {"1", *(str(each) for each in range(5, RAN_MAX + 4))}
    assert state.with_run("7", "other", plan) is state
    # A number below all others is kept when it is called: it is the newest one that ran.
    assert "2" in state.with_run("2", "print", plan).ran


def test_room_is_made_by_aliases_that_a_file_had_once_the_oldest_first() -> None:
    lost = {f"lost-{each}": kept(each) for each in range(2)}
    made = {f"made-{each}": kept(0, file=None) for each in range(VERSIONS_MAX - 3)}
    state = FunctionState(aliases={**lost, **made, "live": kept(0)})
    plan = function(1, aliases=("live",))
    room = state.with_room(plan)
    assert state.aliases.keys() - room.aliases.keys() == {"lost-0"}
    full = room.with_alias("one", kept(0, file=None)).with_room(plan).with_alias("two", kept(0, file=None))
    assert full.aliases.keys() == {*made, "live", "one", "two"} - {"lost-1"}
    assert full.with_room(plan) == full
