"""Tumbling windows open with a record, carry the returned state, and close with a call of their own (spec 1.4, 7.1)."""

import json

import msgspec

from poller.records import SHARD_END, Checkpoint, Ended, Epoch, Monotonic, Position, ShardId
from poller.rules.attempts import Advance, Discard, Invoke, Work, drop, settle, step
from poller.rules.flow import ShardFlow, Windowing
from poller.rules.policies import BatchPolicy, RetryPolicy
from poller.rules.responses import Accepted, Rejected, Response, Verdict
from poller.rules.windows import FINAL_GRACE_S, STATE_BYTES_MAX, Closing, WindowMemo, Windows
from tests.rules.build import BASE, Plain, ids, kinesis

SHARD = ShardId("shardId-000000000000")
FAILED = Rejected(Ended.FUNCTION_ERROR, "no", Response("$LATEST", "Unhandled"))


class Lane:
    """Drives a windowed flow by hand: the function adds up the records that it saw in its state."""

    def __init__(self, checkpoint: Checkpoint | None = None, *, records_max: int = 100) -> None:
        self.flow = ShardFlow(
            checkpoint or Checkpoint(Position.horizon()),
            batch=BatchPolicy(records_max=records_max),
            lanes=1,
            look_ahead_records_max=1000,
            encoder=Plain(),
            matches=None,
            windowing=Windowing(10, SHARD, "arn:stream"),
        )
        self.calls: list[tuple[list[int], str, object, bool, bool]] = []
        self.discards: list[Discard] = []
        self.policy = RetryPolicy(retries_max=1)

    def put(self, *records: tuple[int, float], caught_up: bool = True, asked: float = 1000.0) -> None:
        page = [kinesis(number, arrived=BASE + at) for number, at in records]
        self.flow.accept(page, caught_up=caught_up, asked=Epoch(BASE + asked))

    def run(self, at: float, verdict: Verdict | None = None) -> None:
        """Works off all that is due `at` seconds after the base."""
        while work := self._begin(at):
            left: Work | None = work
            while left is not None:
                left = self._step(left, at, verdict)
                self.flow.replace(0, left)

    def _begin(self, at: float) -> Work | None:
        return self.flow.begin(0, new_id=ids(), now=Monotonic(at), epoch=Epoch(BASE + at))

    def _step(self, work: Work, at: float, verdict: Verdict | None) -> Work | None:
        far = Monotonic(max(at, float(work.resume_at)))
        match step(work, self.policy, now=far, epoch=Epoch(BASE + at)):
            case Invoke(part):
                event = json.loads(self.flow.event(part, part.entries).encoded())
                self._note(event)
                answer = verdict or Accepted(
                    json.dumps({"n": _count(event["state"]) + len(part.entries)}).encode()
                )
                left, effects = settle(work, answer, self.policy, new_id=ids(), now=far, rng=_Never())
                self.flow.answered(part, answer)
                for effect in effects:
                    if isinstance(effect, Advance):
                        self.flow.resolve(effect.entries)
                return left
            case Discard() as discard:
                self.discards.append(discard)
                left, advance = drop(work, discard, new_id=ids(), now=far)
                self.flow.given_up(discard.part)
                self.flow.resolve(advance.entries)
                return left
            case _:
                raise AssertionError("nothing waits here")

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
    work_state = Accepted(big)
    work = lane._begin(2)
    assert work is not None
    lane.flow.replace(0, lane._step(work, 2, work_state))
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
    work = lane._begin(2)
    assert work is not None
    lane.flow.replace(0, lane._step(work, 2, Accepted(big)))
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
    work = lane._begin(12)
    assert work is not None
    left: Work | None = work
    while left is not None:
        left = lane._step(left, 12, FAILED)
        lane.flow.replace(0, left)
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
    work = lane._begin(4)
    assert work is not None
    lane.flow.replace(0, lane._step(work, 4, FAILED))
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
    assert memo == {"length_s": 10, "start": int(BASE), "state": {"n": 1}}
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
