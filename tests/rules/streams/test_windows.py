"""Tumbling windows open with a record, carry the returned state, and close with a call of their own (aws-behaviour#tumbling-windows)."""

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.invocations import Ended
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import SHARD_END, Epoch, Monotonic, Position, ShardId
from poller.domain.rows import Checkpoint
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Response, Verdict
from poller.rules.streams.attempts import Discard
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.lanes import DiscardPart, Done, InvokePart, Rest, WaitUntil
from poller.rules.streams.windowed_batches import Windowing
from poller.rules.streams.windows import FINAL_GRACE_S, STATE_BYTES_MAX, Closing, WindowMemo, Windows
from tests.rules.build import BASE, Plain, ids, kinesis

SHARD = ShardId("shardId-000000000000")
FAILED = Rejected(Ended.FUNCTION_ERROR, "no", Response("$LATEST", "Unhandled"))
THROTTLED = Deferred(Ended.THROTTLED, "busy")
CALLS_MAX = 200
SPLITTING = RetryPolicy(retries_max=1, bisect=True, report_failures=True)


def _of_size(size: int) -> bytes:
    """A state of this many bytes."""
    return b'{"x":"' + b"x" * (size - 8) + b'"}'


BIG = _of_size(STATE_BYTES_MAX + 1)
GREW = Accepted(BIG)


def _reports(index: int, state: bytes = BIG) -> Partial:
    return Partial(frozenset({index}), Response("$LATEST", None), state)


class Lane:
    """Drives a windowed flow by its verbs: the function adds up the records that it saw in its state."""

    def __init__(
        self,
        checkpoint: Checkpoint | None = None,
        *,
        records_max: int = 100,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.flow = ShardFlow(
            checkpoint or Checkpoint(Position.horizon()),
            batch=BatchPolicy(records_max=records_max),
            retry=policy or RetryPolicy(retries_max=1),
            lanes=1,
            look_ahead_records_max=1000,
            encoder=Plain(),
            new_id=ids(),
            rng=_Never(),
            windowing=Windowing(10, SHARD, "arn:stream", 1.0),
        )
        self.calls: list[tuple[list[int], str, object, bool, bool]] = []
        self.discards: list[Discard] = []
        self.answers: list[Verdict | None] = []

    def put(self, *records: tuple[int, float], caught_up: bool = True, asked: float = 1000.0) -> None:
        page = [kinesis(number, arrived=BASE + at) for number, at in records]
        self.flow.accept(page, caught_up=caught_up, asked=Epoch(BASE + asked))

    def run(self, at: float, verdict: Verdict | None = None) -> None:
        """Works off all that is due `at` seconds after the base."""
        while self.move(at, verdict):
            pass

    def run_to(self, calls: int, at: float) -> None:
        """Works on until the function was called this often."""
        while len(self.calls) < calls:
            assert self.move(at), "nothing is due"

    def due(self, at: float) -> InvokePart | DiscardPart | None:
        """What is due at this time, with no regard to waits between tries."""
        now = Monotonic(at)
        while True:
            match self.flow.next(0, now=now, epoch=Epoch(BASE + at))[0]:
                case WaitUntil(until):
                    now = until
                case InvokePart() | DiscardPart() as command:
                    return command
                case Rest() | Done():
                    return None

    def move(self, at: float, verdict: Verdict | None = None) -> bool:
        """One call or one discard; False when nothing is due."""
        match self.due(at):
            case InvokePart(part, event):
                content = json.loads(event.encoded())
                self._note(content)
                assert len(self.calls) <= CALLS_MAX, "the function is called for ever"
                answer = verdict or (self.answers.pop(0) if self.answers else None)
                answer = answer or Accepted(
                    json.dumps({"n": _count(content["state"]) + len(part.entries)}).encode()
                )
                self.flow.answered(0, answer, now=Monotonic(at), epoch=Epoch(BASE + at))
            case DiscardPart(discard):
                self.discards.append(discard)
                self.flow.discarded(0, now=Monotonic(at))
            case None:
                return False
        return True

    def _note(self, event: dict[str, object]) -> None:
        window = event["window"]
        assert isinstance(window, dict)
        records = event["Records"]
        assert isinstance(records, list)
        self.calls.append(
            (
                records,
                str(window["start"])[17:19],
                event["state"],
                bool(event["isFinalInvokeForWindow"]),
                bool(event["isWindowTerminatedEarly"]),
            )
        )


def _count(state: dict[str, object]) -> int:
    count = state.get("n", 0)
    return count if isinstance(count, int) else 0


class _Never:
    def uniform(self, a: float, b: float, /) -> float:
        return a


def test_state_goes_from_call_to_call_and_a_final_call_closes_the_window() -> None:
    lane = Lane()
    lane.put((1, 1.0), (2, 2.0))
    lane.run(3)
    lane.put((3, 4.0))
    lane.run(4)
    lane.put((4, 11.0))
    lane.run(12)
    assert lane.calls == [
        ([1, 2], "00", {}, False, False),
        ([3], "00", {"n": 2}, False, False),
        ([], "00", {"n": 3}, True, False),
        ([4], "10", {}, False, False),
    ]


def test_a_batch_never_spans_two_windows() -> None:
    lane = Lane()
    lane.put((1, 1.0), (2, 9.9), (3, 10.0), (4, 25.0))
    lane.run(26)
    assert [(records, start) for records, start, *_ in lane.calls] == [
        ([1, 2], "00"),
        ([], "00"),
        ([3], "10"),
        ([], "10"),
        ([4], "20"),
    ]


def test_empty_windows_have_no_calls() -> None:
    lane = Lane()
    lane.put((1, 1.0), (2, 55.0))
    lane.run(56)
    assert [start for _, start, *_ in lane.calls] == ["00", "00", "50"]


def test_a_late_record_belongs_to_the_open_window() -> None:
    lane = Lane()
    lane.put((1, 11.0))
    lane.run(11)
    lane.put((2, 9.0))
    lane.run(12)
    assert [(records, start) for records, start, *_ in lane.calls] == [([1], "10"), ([2], "10")]


def test_an_idle_window_closes_after_its_grace_once_the_source_has_nothing_more() -> None:
    lane = Lane()
    lane.put((1, 1.0), caught_up=False)
    lane.run(2)
    lane.run(10 + FINAL_GRACE_S + 1)
    assert len(lane.calls) == 1
    lane.put(caught_up=True)
    lane.run(10 + FINAL_GRACE_S - 0.1)
    assert len(lane.calls) == 1
    lane.run(10 + FINAL_GRACE_S)
    assert lane.calls[-1] == ([], "00", {"n": 1}, True, False)


def test_a_window_stays_open_while_the_source_was_not_read_since_its_end() -> None:
    lane = Lane()
    lane.put((1, 1.0), asked=9.9)
    lane.run(2)
    lane.run(10 + FINAL_GRACE_S + 60)
    assert len(lane.calls) == 1
    lane.put(asked=10.0)
    lane.run(10 + FINAL_GRACE_S + 61)
    assert lane.calls[-1] == ([], "00", {"n": 1}, True, False)


def test_a_state_above_the_limit_ends_its_window_early_with_the_whole_state() -> None:
    lane = Lane()
    lane.put((1, 1.0))
    big = json.dumps({"n": "x" * STATE_BYTES_MAX}).encode()
    assert lane.move(2, Accepted(big))
    lane.put((2, 3.0))
    lane.run(4)
    early = lane.calls[1]
    assert early[0] == []
    assert early[2] == json.loads(big)
    assert early[3:] == (True, True)
    assert lane.calls[2] == ([2], "00", {}, False, False)


def test_a_state_above_the_limit_survives_a_restart_until_its_early_call_is_done() -> None:
    lane = Lane()
    lane.put((1, 1.0))
    big = json.dumps({"n": "x" * (5 * STATE_BYTES_MAX)}).encode()
    assert lane.move(2, Accepted(big))
    again = Lane(lane.flow.checkpoint())
    assert again.flow.position == Position.after("1")
    again.run(3)
    assert again.calls == [([], "00", json.loads(big), True, True)]
    assert "window" not in json.loads(again.flow.checkpoint().memo)


def test_a_final_call_that_fails_for_good_is_given_up_and_the_window_is_closed() -> None:
    lane = Lane()
    lane.put((1, 1.0))
    lane.run(2)
    lane.put((2, 11.0))
    for _ in range(3):
        assert lane.move(12, FAILED)
    (discard,) = lane.discards
    assert discard.entries == ()
    assert discard.part.final
    assert discard.invoke_count == 2
    lane.run(12)
    assert lane.calls[-1] == ([2], "10", {}, False, False)


def test_the_state_survives_a_restart_with_the_position() -> None:
    lane = Lane()
    lane.put((1, 1.0), (2, 2.0))
    lane.run(3)
    checkpoint = lane.flow.checkpoint()
    assert checkpoint.position == Position.after("2")
    again = Lane(checkpoint)
    again.put((3, 4.0))
    again.run(5)
    assert again.calls == [([3], "00", {"n": 2}, False, False)]


def test_a_restored_window_closes_before_records_of_a_later_one_when_its_own_are_gone() -> None:
    lane = Lane()
    lane.put((1, 1.0))
    lane.run(2)
    lane.put((2, 3.0))
    assert lane.move(4, FAILED)
    again = Lane(lane.flow.checkpoint())
    again.put((9, 25.0))
    again.run(26)
    assert [(records, start, final) for records, start, _, final, _ in again.calls] == [
        ([], "00", True),
        ([9], "20", False),
    ]


def test_the_end_of_the_shard_waits_for_the_final_call() -> None:
    lane = Lane()
    lane.put((1, 1.0))
    lane.run(2)
    lane.flow.end()
    assert lane.flow.checkpoint().position == Position.after("1")
    assert not lane.flow.done
    lane.run(3)
    assert lane.calls[-1] == ([], "00", {"n": 1}, True, False)
    assert lane.flow.checkpoint() == Checkpoint(SHARD_END)


def test_a_shard_that_ends_between_windows_ends_at_once() -> None:
    lane = Lane()
    lane.flow.end()
    assert lane.flow.checkpoint() == Checkpoint(SHARD_END)


def test_the_state_of_another_window_length_is_forgotten() -> None:
    lane = Lane()
    lane.put((1, 1.0))
    lane.run(2)
    memo = json.loads(lane.flow.checkpoint().memo)["window"]
    assert memo == {"length_s": 10, "start": int(BASE), "state": {"n": 1}, "counted": "1"}
    raw = msgspec.json.decode(msgspec.json.encode(memo), type=WindowMemo)
    assert Windows(10, raw).open
    assert not Windows(20, raw).open


def test_an_open_window_says_when_it_closes() -> None:
    windows = Windows(10)
    assert windows.closing(None, epoch=Epoch(BASE), caught_up=True, ended=True) is None
    windows.enter(Epoch(BASE + 3))
    assert windows.deadline == BASE + 10 + FINAL_GRACE_S
    due = Epoch(BASE + 10 + FINAL_GRACE_S)
    assert windows.closing(None, epoch=due, caught_up=True, ended=False) is Closing.FINAL
    assert windows.closing(None, epoch=due, caught_up=False, ended=False) is None
    assert windows.closing(None, epoch=Epoch(BASE), caught_up=False, ended=True) is Closing.FINAL
    assert windows.closing(Epoch(BASE + 9), epoch=due, caught_up=True, ended=True) is None
    assert windows.closing(Epoch(BASE + 10), epoch=Epoch(BASE), caught_up=False, ended=False) is Closing.FINAL


type Call = tuple[list[int], object, str]
"""Records, state ("big" for the one above the limit) and kind of a call."""
FOUR = ((1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0))


def _brief(lane: Lane) -> list[Call]:
    kinds = {(False, False): "", (True, False): "final", (True, True): "early"}
    big = json.loads(BIG)
    return [
        (records, "big" if state == big else state, kinds[final, early])
        for records, _, state, final, early in lane.calls
    ]


def _scripted(*answers: Verdict | None) -> Lane:
    """A lane with records 1 to 4 and these answers; after them, and for None, the function adds up."""
    lane = Lane(policy=SPLITTING)
    lane.answers = list(answers)
    lane.put(*FOUR)
    return lane


LEFT_AT_WORK = {
    "behind a report": (
        [_reports(1)],
        [([1, 2, 3, 4], {}, ""), ([], "big", "early"), ([2, 3, 4], {}, "")],
    ),
    "one half": (
        [FAILED, GREW],
        [([1, 2, 3, 4], {}, ""), ([1, 2], {}, ""), ([], "big", "early"), ([3, 4], {}, "")],
    ),
    "a quarter and a half": (
        [FAILED, FAILED, GREW],
        [
            ([1, 2, 3, 4], {}, ""),
            ([1, 2], {}, ""),
            ([1], {}, ""),
            ([], "big", "early"),
            ([2], {}, ""),
            ([3, 4], {"n": 1}, ""),
        ],
    ),
    "something of both halves": (
        [FAILED, _reports(1)],
        [
            ([1, 2, 3, 4], {}, ""),
            ([1, 2], {}, ""),
            ([], "big", "early"),
            ([2], {}, ""),
            ([3, 4], {"n": 1}, ""),
        ],
    ),
    "behind two reports": (
        [_reports(1), None, _reports(1)],
        [
            ([1, 2, 3, 4], {}, ""),
            ([], "big", "early"),
            ([2, 3, 4], {}, ""),
            ([], "big", "early"),
            ([3, 4], {}, ""),
        ],
    ),
    "behind an early call that answers with a large state itself": (
        [_reports(1), GREW],
        [([1, 2, 3, 4], {}, ""), ([], "big", "early"), ([2, 3, 4], {}, "")],
    ),
    "behind an early call that fails once": (
        [_reports(1), FAILED],
        [([1, 2, 3, 4], {}, ""), ([], "big", "early"), ([], "big", "early"), ([2, 3, 4], {}, "")],
    ),
    "behind an early call that is throttled more often than it may fail": (
        [FAILED, _reports(1), THROTTLED, THROTTLED, FAILED],
        [
            ([1, 2, 3, 4], {}, ""),
            ([1, 2], {}, ""),
            *[([], "big", "early")] * 4,
            ([2], {}, ""),
            ([3, 4], {"n": 1}, ""),
        ],
    ),
    "nothing": (
        [GREW],
        [([1, 2, 3, 4], {}, ""), ([], "big", "early")],
    ),
    "nothing behind the last half": (
        [FAILED, None, GREW],
        [([1, 2, 3, 4], {}, ""), ([1, 2], {}, ""), ([3, 4], {"n": 2}, ""), ([], "big", "early")],
    ),
}
left_at_work = pytest.mark.parametrize(("answers", "calls"), LEFT_AT_WORK.values(), ids=LEFT_AT_WORK)


@left_at_work
def test_a_window_whose_state_grew_too_large_ends_before_what_is_left_of_its_batch(
    answers: list[Verdict | None], calls: list[Call]
) -> None:
    lane = _scripted(*answers)
    lane.run(5)
    assert _brief(lane) == calls
    assert lane.discards == []
    assert lane.flow.position == Position.after("4")


@left_at_work
def test_a_restart_between_any_two_calls_changes_nothing_of_an_early_end(
    answers: list[Verdict | None], calls: list[Call]
) -> None:
    for done in range(len(calls) + 1):
        lane = _scripted(*answers)
        lane.run_to(done, 5)
        again = Lane(lane.flow.checkpoint(), policy=SPLITTING)
        again.answers = lane.answers
        again.put(*FOUR)
        again.run(6)
        assert _brief(lane) + _brief(again) == calls, f"restarted after {done} calls"
        assert again.flow.position == Position.after("4")


def test_records_behind_the_batch_come_after_what_an_early_end_left_of_it() -> None:
    lane = Lane(records_max=2, policy=SPLITTING)
    lane.answers = [_reports(1)]
    lane.put(*FOUR, (5, 11.0))
    lane.run(12)
    assert _brief(lane) == [
        ([1, 2], {}, ""),
        ([], "big", "early"),
        ([2], {}, ""),
        ([3, 4], {"n": 1}, ""),
        ([], {"n": 3}, "final"),
        ([5], {}, ""),
    ]


@pytest.mark.parametrize("answers", [[_reports(1)], [FAILED, _reports(1)]], ids=["report", "bisect"])
def test_an_early_call_that_fails_for_good_is_given_up_alone(answers: list[Verdict | None]) -> None:
    lane = _scripted(*answers, FAILED, FAILED)
    lane.run_to(len(answers) + 2, 5)
    assert lane.flow.position == Position.after("1")
    lane.run(5)
    (discard,) = lane.discards
    assert (discard.entries, discard.invoke_count) == ((), 2)
    assert discard.part.early
    assert _brief(lane)[len(answers) : len(answers) + 2] == [([], "big", "early")] * 2
    rest = _brief(lane)[len(answers) + 2 :]
    assert [number for records, _, _ in rest for number in records] == [2, 3, 4]
    assert rest[0][1:] == ({}, "")
    assert lane.flow.position == Position.after("4")


def test_an_early_call_of_an_earlier_run_is_made_also_when_what_was_left_is_gone() -> None:
    lane = _scripted(_reports(1))
    lane.run_to(1, 5)
    again = Lane(lane.flow.checkpoint())
    again.put((9, 5.0))
    again.run(6)
    assert _brief(again) == [([], "big", "early"), ([9], {}, "")]


def test_the_end_of_the_shard_waits_for_the_early_call_and_for_what_is_left_behind_it() -> None:
    lane = _scripted(_reports(1))
    lane.flow.end()
    for calls in range(1, 4):
        lane.run_to(calls, 5)
        assert not lane.flow.done
    lane.run(5)
    assert _brief(lane)[1:] == [([], "big", "early"), ([2, 3, 4], {}, ""), ([], {"n": 3}, "final")]
    assert lane.flow.checkpoint() == Checkpoint(SHARD_END)


@pytest.mark.parametrize(("above", "called"), [(0, [2, 3, 4]), (1, [])])
def test_a_state_of_exactly_the_limit_goes_on_with_what_is_left(above: int, called: list[int]) -> None:
    state = _of_size(STATE_BYTES_MAX + above)
    assert len(state) == STATE_BYTES_MAX + above
    lane = _scripted(_reports(1, state))
    lane.run_to(2, 5)
    assert lane.calls[1] == (called, "00", json.loads(state), above > 0, above > 0)


def test_the_state_of_an_answer_that_settles_nothing_ends_no_window() -> None:
    lane = _scripted(_reports(0))
    lane.run(5)
    assert _brief(lane) == [([1, 2, 3, 4], {}, ""), ([1, 2], {}, ""), ([3, 4], {"n": 2}, "")]


@pytest.mark.parametrize(
    ("state", "overgrown"), [(b"{}", False), (_of_size(STATE_BYTES_MAX), False), (BIG, True)]
)
def test_only_an_open_window_with_a_state_above_the_limit_is_overgrown(state: bytes, overgrown: bool) -> None:
    memo = WindowMemo(10, int(BASE), msgspec.Raw(state))
    windows = Windows(10, memo)
    assert windows.overgrown is overgrown
    assert Windows(10, windows.memo()).overgrown is overgrown
    assert not Windows(20, memo).overgrown
    windows.close()
    assert not any([windows.overgrown, Windows(10, windows.memo()).overgrown])


def test_all_that_is_left_behind_an_early_end_is_called_in_the_window_of_its_newest_record() -> None:
    lane = Lane(policy=SPLITTING)
    lane.put((1, 11.0), (2, 9.0), (3, 12.0), (4, 13.0))
    lane.answers = [FAILED, _reports(1)]
    lane.run(14)
    assert [(records, start) for records, start, *_ in lane.calls] == [
        ([1, 2, 3, 4], "10"),
        ([1, 2], "10"),
        ([], "10"),
        ([2], "10"),
        ([3, 4], "10"),
    ]


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_left_behind_an_early_end_begins_the_window_of_its_newest_record(restarted: bool) -> None:
    page = ((1, 11.0), (2, 9.0), (3, 12.0))
    lane = Lane()
    lane.answers = [_reports(1)]
    lane.put(*page)
    if restarted:
        lane.run_to(1, 13)
        lane = Lane(lane.flow.checkpoint())
        lane.put(*page)
    lane.run(13)
    assert [(records, start) for records, start, *_ in lane.calls][-2:] == [([], "10"), ([2, 3], "10")]


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(
        st.sampled_from(["ok", "grow", "fail", "defer", "report", "report and grow"]), max_size=20
    ),
    places=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    restarts=st.sets(st.integers(0, 20), max_size=4),
    bisect=st.booleans(),
)
def test_records_are_never_called_with_a_state_above_the_limit(
    script: list[str], places: list[int], restarts: set[int], bisect: bool
) -> None:
    def life(checkpoint: Checkpoint | None) -> Lane:
        policy = RetryPolicy(retries_max=1, bisect=bisect, report_failures=True)
        lane = Lane(checkpoint, records_max=4, policy=policy)
        lane.put(*[(number, float(number)) for number in range(1, 13)])
        return lane

    lane, calls, grown = life(None), list[Call](), set[int]()
    for turn, kind in enumerate(script):
        due = lane.due(13)
        if due is None:
            break
        part = due.part if isinstance(due, InvokePart) else due.discard.part
        before, size = len(lane.calls), len(part.entries)
        answer = _verdict(kind, size, places[turn % len(places)])
        lane.move(13, answer)
        if size and len(lane.calls) > before and (answer == GREW or _moves_on_and_grows(answer)):
            grown.add(len(calls) + before)
        if turn in restarts:
            calls += _brief(lane)
            lane = life(lane.flow.checkpoint())
    lane.run(13)
    calls += _brief(lane)
    assert lane.flow.position == Position.after("12")
    assert all((state == "big") == (kind == "early") for _, state, kind in calls)
    assert all(kind == "early" for _, _, kind in [calls[index + 1] for index in grown])
    firsts = [records[0] for records, _, _ in calls if records]
    assert all(earlier <= later for earlier, later in pairwise(firsts))
    assert {number for records, _, _ in calls for number in records} == set(range(1, 13))


def _verdict(kind: str, size: int, place: int) -> Verdict | None:
    """What the function says of this many records; a report of none is no answer that it could give."""
    match kind:
        case "grow":
            return GREW
        case "fail":
            return FAILED
        case "defer":
            return THROTTLED
        case "report" | "report and grow" if size:
            return _reports(place % size, BIG if kind == "report and grow" else b"{}")
        case _:
            return None


def _moves_on_and_grows(answer: Verdict | None) -> bool:
    return isinstance(answer, Partial) and min(answer.failed) > 0 and answer.state == BIG
