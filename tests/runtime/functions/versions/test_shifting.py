"""Shifts of aliases under load on virtual time, with two workers on one store: they move, wait for hooks, and are rolled back."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from poller.domain.functions.alias_control import AliasChange, AliasView, ShiftRequest
from poller.domain.functions.calls import FunctionCall
from poller.domain.functions.shift_strategies import own_strategy, strategy
from poller.domain.functions.shifts import CALLS_MIN, ShiftState
from poller.domain.functions.versions import AliasPlan
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import DaemonPlan, FunctionPlan, SourceKind
from poller.domain.policies import BatchPolicy
from poller.domain.records import MappingId
from poller.domain.telemetry.daemon_events import AliasWeight, ShiftChanged
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import daemon_plan, now, play, until
from tests.runtime.fakes import mapping
from tests.runtime.functions.versions.test_versions import (
    ARN,
    Place,
    Version,
    failing,
    function,
    plan,
    ready,
    version_of,
)
from tests.runtime.queues.queue_fakes import FIFO, fifo

CANARY = strategy("Canary10Percent5Minutes")


@dataclass
class Load:
    """Calls of the alias `live` by a worker, a few a second, until it is stopped. `got` has the time and version of each."""

    daemon: Daemon
    got: list[tuple[float, str]] = field(default_factory=list)
    sent: int = 0
    stopped: bool = False

    async def run(self) -> None:
        while not self.stopped:
            await asyncio.sleep(0.5)
            asked = FunctionCall(function="reader", qualifier="live", payload=json.dumps(self.sent).encode())
            self.sent += 1
            self.got.append((now(), version_of(await self.daemon.control.calls.call(asked))))

    def between(self, began: float, ends: float) -> Counter[str]:
        """How often each version was called between two moments."""
        return Counter(version for at, version in self.got if began <= at < ends)


def two(
    place: Place, made: FunctionPlan, *more: FunctionPlan
) -> tuple[Callable[[], Daemon], Callable[[], Daemon], list[Daemon]]:
    """Two workers on one store, and the list that has them when they have begun."""
    begun: list[Daemon] = []

    def one(worker: str) -> Daemon:
        found = plan(made, "", worker=worker)
        functions = {**found.functions, **{each.name: each for each in more}}
        begun.append(place.daemon(replace(found, functions=functions), seed=len(begun)))
        return begun[-1]

    return lambda: one("worker-1"), lambda: one("worker-2"), begun


async def under_load(daemons: list[Daemon], work: Callable[[list[Load]], Awaitable[None]]) -> list[Load]:
    for each in daemons:
        await ready(each)
    loads = [Load(each) for each in daemons]
    async with asyncio.TaskGroup() as scope:
        for load in loads:
            scope.create_task(load.run())
        await work(loads)
        for load in loads:
            load.stopped = True
    return loads


def request(**changes: Any) -> ShiftRequest:
    members: dict[str, Any] = {"to": "2", "strategy": CANARY, "by": "me"} | changes
    return ShiftRequest(**members)


def alias(daemon: Daemon) -> AliasView:
    return daemon.control.calls.aliases.alias("reader", "live")


def state(daemon: Daemon) -> ShiftState:
    found = alias(daemon).shift
    assert found is not None
    return found.state


def test_a_canary_moves_a_tenth_and_then_all_on_both_workers() -> None:
    place = Place(v1=Version(), v2=Version())
    first, second, begun = two(place, function("1", "2"))

    async def work(loads: list[Load]) -> None:
        await asyncio.sleep(60)
        began = now()
        made = await begun[1].control.calls.aliases.shift("reader", "live", request(shift="mine"))
        assert made.shift is not None
        assert (made.version, made.weights, made.shift.state) == ("1", {"2": 0.1}, ShiftState.SHIFTING)
        # The same request again is the same shift.
        again = await begun[0].control.calls.aliases.shift("reader", "live", request(shift="mine"))
        assert again.shift == made.shift
        with pytest.raises(ApiError, match="is being shifted from version 1 to 2") as refused:
            await begun[0].control.calls.aliases.update("reader", "live", AliasChange(version="2"))
        assert refused.value.fault is ApiErrorType.CONFLICT
        await asyncio.sleep(300 - (now() - began) + 5)
        assert [state(each) for each in begun] == [ShiftState.DONE] * 2
        assert [(alias(each).version, alias(each).weights) for each in begun] == [("2", {})] * 2
        await asyncio.sleep(60)
        for load in loads:
            assert load.between(0, began).keys() == {"1"}
            tenth = load.between(began + 4, began + 300)
            assert 0.02 < tenth["2"] / tenth.total() < 0.25
            assert load.between(began + 303, now()).keys() == {"2"}

    async def script(_: Daemon) -> None:
        await under_load(begun, work)
        told = [each.state for each in place.seen.of(ShiftChanged)]
        assert told == [ShiftState.SHIFTING] * 2 + [ShiftState.DONE] * 2
        shares = {each.weight for each in place.seen.of(AliasWeight) if each.version == "2"}
        assert shares == {0.1, 1.0}

    play(first, script, second)


def test_a_shift_is_rolled_back_by_the_failures_of_the_new_version_and_not_by_those_of_the_old() -> None:
    place = Place(v1=Version(failing), v2=Version(failing))
    first, second, begun = two(place, function("1", "2"))

    async def work(loads: list[Load]) -> None:
        began = now()
        linear = strategy("Linear50PercentEvery10Minutes")
        await begun[0].control.calls.aliases.shift(
            "reader", "live", request(strategy=linear, failure_rate=0.5)
        )
        await until(lambda: state(begun[0]) is ShiftState.ROLLED_BACK)
        took = now() - began
        # A worker makes two calls a second, half of them of the new version.
        assert CALLS_MIN / 2.5 < took < 40
        await asyncio.sleep(2.5)
        ended = alias(begun[1])
        assert ended.shift is not None
        assert "calls of version 2 failed, more than the share 0.5" in ended.shift.ended_because
        assert (ended.version, ended.weights) == ("1", {})
        calm = now()
        await asyncio.sleep(30)
        for load in loads:
            assert load.between(calm, now()).keys() == {"1"}

    async def script(_: Daemon) -> None:
        await under_load(begun, work)

    play(first, script, second)


def test_a_shift_is_rolled_back_by_hand_on_every_worker_within_two_seconds() -> None:
    place = Place(v1=Version(), v2=Version())
    first, second, begun = two(place, function("1", "2"))

    async def work(loads: list[Load]) -> None:
        aliases = begun[1].control.calls.aliases
        with pytest.raises(ApiError, match="No shift of the alias live runs"):
            await aliases.roll_back("reader", "live", by="me", reason="")
        await aliases.shift("reader", "live", request(strategy=own_strategy(90, 600, False)))
        await asyncio.sleep(30)
        made = await aliases.roll_back("reader", "live", by="me", reason="it is slow")
        assert made.shift is not None
        assert (made.shift.ended_because, made.version) == ("by me: it is slow", "1")
        calm = now()
        await asyncio.sleep(30)
        assert loads[0].between(calm + 2, now()).keys() == {"1"}
        assert loads[1].between(calm + 0.1, now()).keys() == {"1"}
        # What has ended can be undone, or done again.
        await aliases.shift("reader", "live", request(strategy=strategy("AllAtOnce")))
        await asyncio.sleep(10)
        assert [alias(each).version for each in begun] == ["2", "2"]

    async def script(_: Daemon) -> None:
        await under_load(begun, work)

    play(first, script, second)


class Hook(Version):
    """A hook that answers what it is told to, after a while."""

    def __init__(self, *answers: Outcome, takes_s: float = 30.0) -> None:
        left = list(answers)
        super().__init__(lambda _: left.pop(0), takes_s)


SUCCEEDED, REFUSED = Succeeded(b'{"status": "Succeeded"}'), Succeeded(b'"Failed"')
CHECK = FunctionPlan(name="check", invoker="fake", timeout_s=120.0)


@pytest.mark.parametrize(
    ("answers", "states", "version"),
    [
        (
            [SUCCEEDED, Succeeded(b'"Succeeded"')],
            [ShiftState.BEFORE, ShiftState.SHIFTING, ShiftState.AFTER, ShiftState.DONE],
            "2",
        ),
        ([REFUSED], [ShiftState.BEFORE, ShiftState.ROLLED_BACK], "1"),
        (
            [SUCCEEDED, FunctionError("ValueError", "no")],
            [ShiftState.BEFORE, ShiftState.SHIFTING, ShiftState.AFTER, ShiftState.ROLLED_BACK],
            "1",
        ),
    ],
)
def test_hooks_decide_before_and_after(
    answers: list[Outcome], states: list[ShiftState], version: str
) -> None:
    place = Place(v1=Version(), v2=Version())
    hook = place.functions["check"] = Hook(*answers)
    first, second, begun = two(place, function("1", "2"), CHECK)

    async def work(loads: list[Load]) -> None:
        began = now()
        await begun[1].control.calls.aliases.shift(
            "reader", "live", request(before="check", after="check", strategy=own_strategy(50, 60, False))
        )
        await asyncio.sleep(25)
        assert [state(each) for each in begun] == [ShiftState.BEFORE] * 2
        assert loads[0].between(began, now()).keys() == {"1"}
        await asyncio.sleep(150)
        assert [alias(each).version for each in begun] == [version] * 2
        # Only the first worker by name has called it.
        assert len(hook.got) == len(answers)
        assert json.loads(hook.got[0].payload).keys() == {"DeploymentId", "LifecycleEventHookExecutionId"}
        calm = now()
        await asyncio.sleep(20)
        for load in loads:
            assert load.between(calm, now()).keys() == {version}

    async def script(_: Daemon) -> None:
        await under_load(begun, work)
        told = [each.state for each in place.seen.of(ShiftChanged)]
        assert [each for each in states if each in told] == states
        assert set(told) == set(states)

    play(first, script, second)


def test_a_hook_that_never_answers_has_failed_after_an_hour_and_one_that_does_not_exist_is_refused() -> None:
    place = Place(v1=Version(), v2=Version())
    place.functions["check"] = Hook(takes_s=9000.0)
    patient = replace(CHECK, timeout_s=9000.0)
    first, _, begun = two(place, function("1", "2"), patient)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        aliases = daemon.control.calls.aliases
        with pytest.raises(
            ApiError, match=r"before: Function not found: .*; write the name of a function of this daemon"
        ) as refused:
            await aliases.shift("reader", "live", request(before="nobody"))
        assert refused.value.fault is ApiErrorType.PARAMETER
        await aliases.shift("reader", "live", request(before="check"))
        await asyncio.sleep(3590)
        assert state(daemon) is ShiftState.BEFORE
        await asyncio.sleep(20)
        assert state(daemon) is ShiftState.ROLLED_BACK
        shown = alias(daemon).shift
        assert shown is not None
        assert "has not answered within 3600 s" in shown.ended_because

    play(first, script)
    assert len(begun) == 1


def test_a_shift_goes_on_after_a_restart_in_the_middle() -> None:
    place = Place(v1=Version(), v2=Version())
    made = function("1", "2")

    async def before(daemon: Daemon) -> None:
        await ready(daemon)
        linear = strategy("Linear10PercentEvery1Minute")
        await daemon.control.calls.aliases.shift("reader", "live", request(strategy=linear))
        await asyncio.sleep(150)
        assert alias(daemon).weights == pytest.approx({"2": 0.3})

    async def after(daemon: Daemon) -> None:
        await ready(daemon)
        shown = alias(daemon)
        assert shown.shift is not None
        # Virtual time begins anew, and the wall clock with it: the shift is where the clock says.
        assert (shown.shift.state, shown.version) == (ShiftState.SHIFTING, "1")
        await asyncio.sleep(560)
        assert (state(daemon), alias(daemon).version) == (ShiftState.DONE, "2")

    play(lambda: place.daemon(plan(made, "")), before)
    play(lambda: place.daemon(plan(made, "")), after)


def test_the_file_ends_a_shift_when_it_defines_the_alias_anew() -> None:
    place = Place(v1=Version(), v2=Version(), v3=Version())
    made = function("1", "2", "3")

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await daemon.control.calls.aliases.shift("reader", "live", request())
        await asyncio.sleep(10)
        daemon.replan(plan(replace(made, aliases={"live": AliasPlan(version="3")}), ""))
        await asyncio.sleep(10)
        shown = alias(daemon)
        assert shown.shift is not None
        assert (shown.version, shown.shift.state) == ("3", ShiftState.ROLLED_BACK)
        assert "configuration file" in shown.shift.ended_because

    play(lambda: place.daemon(plan(made, "")), script)


WRONG: list[tuple[dict[str, Any], ApiErrorType, str]] = [
    (
        {"to": "9"},
        ApiErrorType.PARAMETER,
        r"to: version 9 is not below functions.reader.versions \(there: 1, 2\)",
    ),
    ({"to": "$LATEST"}, ApiErrorType.PARAMETER, "to: version"),
    ({"to": "1"}, ApiErrorType.PARAMETER, "leads to version 1 already"),
    ({"failure_rate": 1.0}, ApiErrorType.PARAMETER, "failure_rate"),
    ({"failure_rate": float("nan")}, ApiErrorType.PARAMETER, "failure_rate"),
    (
        {"failure_rate": 0.1, "strategy": strategy("AllAtOnce")},
        ApiErrorType.PARAMETER,
        "failure_rate: has no effect, because the shift is over at once",
    ),
]


def test_wrong_requests_are_refused_and_change_nothing() -> None:
    place = Place(v1=Version(), v2=Version())

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        aliases = daemon.control.calls.aliases
        for changes, fault, said in WRONG:
            with pytest.raises(ApiError, match=said) as refused:
                await aliases.shift("reader", "live", request(**changes))
            assert refused.value.fault is fault
        for work, fault, said in (
            (
                aliases.create("reader", "live", AliasChange(version="1")),
                ApiErrorType.CONFLICT,
                "Alias already exists: arn:.*:reader:live",
            ),
            (
                aliases.create("reader", "7", AliasChange(version="1")),
                ApiErrorType.VALIDATION,
                "regular expression",
            ),
            (
                aliases.create("reader", "x", AliasChange(version="9")),
                ApiErrorType.MISSING,
                "Function not found: arn:.*:9",
            ),
            (aliases.create("reader", "x", AliasChange()), ApiErrorType.PARAMETER, "FunctionVersion"),
            (
                aliases.create("reader", "x", AliasChange(version="1", weights={"1": 0.1})),
                ApiErrorType.PARAMETER,
                "already included",
            ),
            (
                aliases.create("reader", "x", AliasChange(version="$LATEST", weights={"1": 0.1})),
                ApiErrorType.PARAMETER,
                "not supported",
            ),
            (
                aliases.create("reader", "x", AliasChange(version="1", weights={"2": 1.5})),
                ApiErrorType.PARAMETER,
                "0.0 to 1.0",
            ),
            (
                aliases.update("reader", "gone", AliasChange(version="1")),
                ApiErrorType.MISSING,
                "Cannot find alias arn",
            ),
            (
                aliases.update("reader", "live", AliasChange(version="2", revision_id="old")),
                ApiErrorType.PRECONDITION,
                "Revision Id",
            ),
            (
                aliases.update("nobody", "live", AliasChange(version="2")),
                ApiErrorType.MISSING,
                "Function not found",
            ),
        ):
            with pytest.raises(ApiError, match=said) as refused:
                await work
            assert refused.value.fault is fault
        await aliases.delete("reader", "gone")
        assert [(each.name, each.version, each.shift) for each in aliases.aliases("reader")] == [
            ("live", "1", None)
        ]
        now_it_has = aliases.alias("reader", "live").revision_id
        changed = await aliases.update(
            "reader", "live", AliasChange(weights={"2": 0.5}, revision_id=now_it_has)
        )
        assert (changed.weights, changed.revision_id != now_it_has) == ({"2": 0.5}, True)
        assert [each.name for each in aliases.aliases("reader", version="2")] == ["live"]

    play(lambda: place.daemon(plan(function("1", "2"), "")), script)


def test_a_fifo_group_stays_in_order_through_an_alias_that_is_shifted() -> None:
    order: list[tuple[str, str]] = []

    def noted(number: str) -> Callable[[Invocation], Outcome]:
        def answer(invocation: Invocation) -> Outcome:
            body = json.loads(invocation.payload)["Records"][0]["body"]
            order.append((number, body))
            tries = sum(each[1] == body for each in order)
            return Succeeded(b"") if tries > 1 else failing(invocation)

        return answer

    place = Place(v1=Version(noted("1"), 1.0), v2=Version(noted("2"), 1.0))
    service = fifo(visibility_s=5)
    place.sources[FIFO] = service
    queue = mapping(
        mapping=MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b12"),
        kind=SourceKind.SQS,
        source_arn=FIFO,
        function_arn=f"{ARN}:live",
        batch=BatchPolicy(records_max=1),
    )
    whole: DaemonPlan = daemon_plan(queue, functions={"reader": function("1", "2", timeout_s=4.0)})

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        service.send(*range(20), group="one")
        await daemon.control.calls.aliases.shift(
            "reader", "live", request(strategy=own_strategy(50, 60, False))
        )
        await until(lambda: len(order) == 40, within_s=600)
        bodies = [body for _, body in order]
        # Each message is tried again before the next one of its group begins.
        assert bodies[::2] == bodies[1::2]
        assert len(set(bodies)) == 20
        assert {number for number, _ in order} == {"1", "2"}
        # A retried message never goes back from the new version to the old one.
        versions: dict[str, list[str]] = {}
        for number, body in order:
            versions.setdefault(body, []).append(number)
        assert all(found == sorted(found) for found in versions.values())

    play(lambda: place.daemon(whole), script)
