"""A reader of a queue knows what it holds back, and hides what it leaves for longer each time that it comes again."""

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Monotonic
from poller.held_notices import HOLD_S_MAX, HeldNotices

NOW = Monotonic(100.0)


def test_a_message_is_hidden_for_the_time_of_its_work_as_often_as_it_comes() -> None:
    held = HeldNotices(60.0)
    assert [held.received("1", f"r{number}", NOW) for number in range(3)] == [60, 60, 60]
    assert held.receipt("1") == "r2"


def test_a_message_that_was_left_is_hidden_twice_as_long_each_time_that_it_comes_again() -> None:
    held = HeldNotices(900.0)
    held.received("1", "r", NOW)
    held.leave("1")
    times = [held.received("1", "r", NOW) for _ in range(8)]
    assert times == [1_800, 3_600, 7_200, 14_400, 28_800, HOLD_S_MAX, HOLD_S_MAX, HOLD_S_MAX]
    assert held.left("1")
    assert held.received("2", "r", NOW) == 900


def test_a_hold_is_a_whole_number_of_seconds_that_sqs_takes() -> None:
    assert [HeldNotices(each).hold_s for each in (0.0, 0.4, 59.6, 1e9)] == [1, 1, 60, HOLD_S_MAX]


def test_what_lapsed_is_not_hidden_by_this_reader_and_can_still_be_removed() -> None:
    held = HeldNotices(60.0)
    held.received("1", "r", NOW)
    held.lapsed("1", NOW)
    assert (held.hidden(NOW), held.receipts(NOW), held.receipt("1")) == (0, [], "r")
    held.kept("1", NOW)
    assert held.hidden(NOW) == 1
    held.removed("1")
    held.removed("1")
    assert ("1" in held, held.hidden(NOW), held.left("1")) == (False, 0, False)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["receive", "leave", "keep", "lapse", "remove"]),
        st.sampled_from("abc"),
        st.floats(0.0, 200.0),
    ),
    max_size=40,
)


@given(steps=STEPS, hold_s=st.integers(1, 100))
def test_it_counts_as_hidden_only_what_was_hidden_for_longer_than_until_now(
    steps: list[tuple[str, str, float]], hold_s: int
) -> None:
    held, now, until = HeldNotices(hold_s), 0.0, dict[str, float]()
    for step, name, later_s in steps:
        now += later_s
        moment = Monotonic(now)
        if step == "receive":
            until[name] = now + held.received(name, f"{name} at {now}", moment)
        elif name in held:
            match step:
                case "leave":
                    held.leave(name)
                case "keep":
                    held.kept(name, moment)
                    until[name] = now + hold_s
                case "lapse":
                    held.lapsed(name, moment)
                    until[name] = now
                case _:
                    held.removed(name)
                    del until[name]
        hidden = {each for each, end in until.items() if end > now}
        assert held.hidden(moment) == len(held.receipts(moment)) == len(hidden)
        assert {each.partition(" ")[0] for each in held.receipts(moment)} == hidden
