"""Owns facts of the line before a function."""

from hypothesis import given
from hypothesis import strategies as st

from poller.rules.flow_control.turns import RoundRobin


def test_mappings_take_turns_and_each_keeps_its_own_order() -> None:
    line = RoundRobin[str, int]()
    for key, waiter in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)):
        line.join(key, waiter)
    line.leave("a", 2)
    assert [line.take() for _ in range(6)] == [1, 4, 5, 3, 6, None]


def test_who_has_had_its_turn_cannot_leave_the_line() -> None:
    line = RoundRobin[str, int]()
    line.join("a", 1)
    assert line.take() == 1
    line.leave("a", 1)
    assert len(line) == 0


@given(st.lists(st.sampled_from("abcd"), max_size=40))
def test_nobody_waits_for_a_second_turn_of_another_mapping(keys: list[str]) -> None:
    line = RoundRobin[str, tuple[str, int]]()
    for number, key in enumerate(keys):
        line.join(key, (key, number))
    served: list[str] = []
    while (waiter := line.take()) is not None:
        served.append(waiter[0])
    assert sorted(served) == sorted(keys)
    for place, key in enumerate(served):
        later = served[place + 1 :]
        until_next = later[: later.index(key)] if key in later else []
        assert all(until_next.count(other) <= 1 for other in set(until_next))
