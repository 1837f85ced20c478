"""A function that its own service ends: its time limit, role and state are its service's, followed while they change."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from poller.domain.errors import AccessDenied, PortError, ResourceMissing, ServiceUnavailable
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import (
    Condition,
    EncodedEvent,
    FunctionError,
    Invocation,
    Outcome,
    Succeeded,
    TimedOut,
    Unreachable,
)
from poller.domain.plan import FunctionPlan, SourceKind
from poller.domain.policies import BatchPolicy, QueuePolicy, RetryPolicy
from poller.domain.records import MappingId
from poller.domain.telemetry.daemon_events import FunctionChanged
from poller.domain.telemetry.mapping_events import Discarded, VisibilityTooShort
from poller.runtime.daemon import Daemon
from poller.runtime.function_watch import AGAIN_S, LIMIT_S_MAX, REFRESH_S, RETRY_S
from poller.runtime.invoking import MARGIN_S, Function
from tests.runtime.daemons import FAILED, STEADY, Site, daemon_plan, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeDestination, FakeFunction, FakeStream, Seen, mapping, records
from tests.runtime.function_fakes import OwnLimit
from tests.runtime.queues.queue_fakes import STANDARD, standard
from tests.virtual import run_virtual

MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
ARN = "arn:aws:lambda:eu-west-1:111122223333:function:reader"
DENIED = AccessDenied("lambda GetFunctionConfiguration: AccessDeniedException (HTTP 403)")


def called(
    invoker: OwnLimit,
    change: Callable[[], None] | None = None,
    *,
    at: float = 0.0,
    timeout_s: float | None = None,
) -> tuple[Outcome, float]:
    """One call of a function whose facts are followed, `change` made while it runs; its outcome and when it came."""

    async def main() -> tuple[Outcome, float]:
        function = Function(FunctionPlan(name="reader", invoker="own", timeout_s=timeout_s), invoker, Seen())
        async with function.used_by(ARN), asyncio.TaskGroup() as scope:
            following = scope.create_task(function.follow())
            if change is not None:
                asyncio.get_running_loop().call_later(at, change)
            await function.slots.acquire()
            call = Invocation(ARN, "id", EncodedEvent(b"{}"), function.limit_s(ARN))
            outcome = await function.call(call, mapping=MAPPING)
            took_s = now()
            following.cancel()
        return outcome, took_s

    return run_virtual(main())


def limits(invoker: OwnLimit, *, configured_s: float | None = None) -> tuple[float, float | None]:
    """How long calls are waited for, and what a queue is compared with."""

    async def main() -> tuple[float, float | None]:
        function = Function(
            FunctionPlan(name="reader", invoker="own", timeout_s=configured_s), invoker, Seen()
        )
        async with function.used_by(ARN):
            return function.limit_s(ARN), function.known_limit_s(ARN)

    return run_virtual(main())


@pytest.mark.parametrize(
    ("own_s", "configured_s", "limit_s"),
    [(60.0, None, 60.0), (60.0, 20.0, 60.0), (60.0, 100.0, 100.0), (3.0, None, 3.0), (900.0, 30.0, 900.0)],
)
def test_a_function_is_waited_for_at_least_as_long_as_its_service_lets_it_run(
    own_s: float, configured_s: float | None, limit_s: float
) -> None:
    invoker = OwnLimit(FunctionFacts(timeout_s=own_s))
    assert limits(invoker, configured_s=configured_s) == (limit_s, own_s)


@pytest.mark.parametrize("configured_s", [None, 20.0])
@pytest.mark.parametrize("trouble", [DENIED, ServiceUnavailable("no answer"), ResourceMissing("none")])
def test_a_function_that_cannot_be_looked_up_is_waited_for_as_long_as_any_function_runs(
    trouble: PortError, configured_s: float | None
) -> None:
    assert limits(OwnLimit(trouble=trouble), configured_s=configured_s) == (LIMIT_S_MAX, configured_s)


def test_a_function_of_a_minute_that_takes_forty_seconds_answers() -> None:
    invoker = OwnLimit(FunctionFacts(timeout_s=60.0), takes_s=40.0)
    assert called(invoker) == (Succeeded(b""), 40.0)


def test_a_time_out_is_the_functions_own() -> None:
    invoker = OwnLimit(FunctionFacts(timeout_s=3.0), takes_s=100.0)
    assert called(invoker, timeout_s=50.0) == (TimedOut(3.0), 3.0)


class NeverAnswers(OwnLimit):
    async def invoke(self, invocation: Invocation) -> Outcome:
        await asyncio.sleep(1e6)
        return Succeeded(b"")


def test_a_function_that_never_answers_is_given_up_a_margin_after_its_own_limit() -> None:
    assert called(NeverAnswers(FunctionFacts(timeout_s=60.0))) == (TimedOut(60.0), 60.0 + MARGIN_S)


@pytest.mark.parametrize("trouble", [None, DENIED])
def test_a_limit_that_is_raised_while_a_call_runs_is_known_before_the_call_is_given_up(
    trouble: PortError | None,
) -> None:
    invoker = NeverAnswers(FunctionFacts(timeout_s=60.0))

    def raised() -> None:
        invoker.facts = FunctionFacts(timeout_s=120.0)
        invoker.trouble = trouble

    known_s = 120.0 if trouble is None else LIMIT_S_MAX
    outcome, ended = called(invoker, raised, at=10.0)
    assert ended == known_s + MARGIN_S
    assert isinstance(outcome, TimedOut)


def test_a_limit_that_is_lowered_gives_no_running_call_up() -> None:
    invoker = OwnLimit(FunctionFacts(timeout_s=600.0), takes_s=500.0)

    def lowered() -> None:
        invoker.facts = FunctionFacts(timeout_s=5.0)

    assert called(invoker, lowered, at=10.0) == (Succeeded(b""), 500.0)


def test_a_function_is_looked_up_now_and_then_and_after_it_could_not_be_called() -> None:
    invoker = OwnLimit(answer=lambda: Unreachable("lambda Invoke: ResourceNotFoundException (HTTP 404)"))

    async def main() -> None:
        function = Function(FunctionPlan(name="reader", invoker="own"), invoker, Seen())
        async with function.used_by(ARN), asyncio.TaskGroup() as scope:
            following = scope.create_task(function.follow())
            await asyncio.sleep(2 * REFRESH_S + 100)
            await function.slots.acquire()
            await function.call(Invocation(ARN, "id", EncodedEvent(b"{}"), 60.0), mapping=MAPPING)
            await asyncio.sleep(1)
            following.cancel()

    run_virtual(main())
    assert [at for at, _ in invoker.looks] == [0.0, REFRESH_S, 2 * REFRESH_S, 2 * REFRESH_S + 100]


def test_a_look_that_failed_is_repeated_soon_and_one_that_was_denied_later() -> None:
    def looks(trouble: PortError) -> list[float]:
        invoker = OwnLimit(trouble=trouble)

        async def main() -> None:
            function = Function(FunctionPlan(name="reader", invoker="own"), invoker, Seen())
            async with function.used_by(ARN), asyncio.TaskGroup() as scope:
                following = scope.create_task(function.follow())
                await asyncio.sleep(REFRESH_S + 1)
                following.cancel()

        run_virtual(main())
        return [at for at, _ in invoker.looks]

    assert looks(ServiceUnavailable("no")) == [RETRY_S * turn for turn in range(11)]
    assert looks(DENIED) == [0.0, REFRESH_S]


def test_mappings_that_begin_together_look_once() -> None:
    invoker = OwnLimit()

    async def main() -> None:
        function = Function(FunctionPlan(name="reader", invoker="own"), invoker, Seen())

        async def user() -> None:
            async with function.used_by(ARN):
                await asyncio.sleep(AGAIN_S / 2)

        async with asyncio.TaskGroup() as scope:
            for _ in range(20):
                scope.create_task(user())

    run_virtual(main())
    assert len(invoker.looks) == 1


def test_each_qualifier_of_a_function_has_facts_of_its_own() -> None:
    class Versions(OwnLimit):
        async def describe_function(self, function_arn: str) -> FunctionFacts:
            return FunctionFacts(timeout_s=float(function_arn.rpartition(":")[2]))

    async def main() -> list[float]:
        function = Function(FunctionPlan(name="reader", invoker="own"), Versions(), Seen())
        async with function.used_by(f"{ARN}:7"), function.used_by(f"{ARN}:70"):
            return [function.limit_s(f"{ARN}:7"), function.limit_s(f"{ARN}:70")]

    assert run_virtual(main()) == [7.0, 70.0]


def test_changes_are_reported_once_and_trouble_is_noted_until_it_is_over() -> None:
    invoker, seen = OwnLimit(FunctionFacts(timeout_s=60.0)), Seen()

    async def main() -> None:
        function = Function(FunctionPlan(name="reader", invoker="own"), invoker, seen)
        async with function.used_by(ARN), asyncio.TaskGroup() as scope:
            following = scope.create_task(function.follow())
            assert function.notes() == []
            invoker.trouble = DENIED
            await asyncio.sleep(2 * REFRESH_S + 1)
            (note,) = function.notes()
            assert note == (
                f"function {ARN}: its own time limit is not known, calls are given up after 900 s: {DENIED.reason};"
                " allow it in the role's policy (docs/operate/iam.md)"
            )
            invoker.trouble = None
            invoker.facts = FunctionFacts(timeout_s=60.0, state="Inactive", state_reason="idle")
            await asyncio.sleep(REFRESH_S)
            assert function.notes() == [f"function {ARN}: its state is Inactive (idle)"]
            invoker.facts = FunctionFacts(timeout_s=90.0, state="Active", update_status="Successful")
            await asyncio.sleep(REFRESH_S)
            assert function.notes() == []
            following.cancel()

    run_virtual(main())
    told = [(each.limit_s, each.known, bool(each.reason)) for each in seen.of(FunctionChanged)]
    assert told == [(60.0, True, False), (900.0, False, True), (60.0, True, True), (90.0, True, False)]


SLOW = FunctionFacts(timeout_s=60.0, role_arn="arn:aws:iam::111122223333:role/reader", state="Active")
OWN = {"reader": FunctionPlan(name="reader", invoker="own")}
ROLES = "arn:aws:iam::111122223333:role"


def stream(*numbers: int) -> FakeStream:
    source = FakeStream()
    source.put(*records(*numbers))
    return source


@pytest.mark.parametrize("trouble", [None, DENIED])
def test_a_slow_function_on_its_own_service_runs_each_batch_of_a_stream_once(
    trouble: PortError | None,
) -> None:
    invoker = OwnLimit(SLOW, takes_s=40.0, trouble=trouble)
    failed = FakeDestination()
    place = Site(
        sources={STREAM_ARN: stream(1, 2)}, functions={"reader": invoker}, destinations={FAILED: failed}
    )
    plan = mapping(retry=RetryPolicy(retries_max=1), destination=FAILED)

    async def script(_: object) -> None:
        await until(lambda: len(place.seen.of(Discarded)) > 0 or len(invoker.runs) > 0)
        await asyncio.sleep(200)

    play(lambda: place.daemon(daemon_plan(plan, functions=OWN)), script)
    assert (len(invoker.runs), invoker.overlapping, invoker.given_up) == (1, False, [])
    assert failed.notices == []


def test_a_slow_function_on_its_own_service_runs_each_message_once() -> None:
    service = standard(30)
    service.send(1)
    invoker = OwnLimit(SLOW, takes_s=40.0)
    place = Site(sources={STANDARD: service}, functions={"reader": invoker})
    plan = mapping(kind=SourceKind.SQS, source_arn=STANDARD)

    async def script(_: object) -> None:
        await asyncio.sleep(200)

    play(lambda: place.daemon(daemon_plan(plan, functions=OWN)), script)
    assert (len(invoker.runs), service.left, service.received) == (1, [], {1: 1})


def test_a_function_that_never_ends_in_time_is_over_before_it_is_tried_again() -> None:
    invoker = OwnLimit(SLOW, takes_s=100.0)
    failed = FakeDestination()
    place = Site(
        sources={STREAM_ARN: stream(1)}, functions={"reader": invoker}, destinations={FAILED: failed}
    )
    plan = mapping(retry=RetryPolicy(retries_max=2), destination=FAILED)

    async def script(_: object) -> None:
        await until(lambda: len(place.seen.of(Discarded)) > 0, within_s=400)

    play(lambda: place.daemon(daemon_plan(plan, functions=OWN)), script)
    assert (len(invoker.runs), invoker.overlapping) == (3, False)
    assert [each.condition for each in place.seen.of(Discarded)] == [Condition.RETRIES]


def roles(invoker: OwnLimit) -> list[str]:
    """The roles in the events that a function got, in order."""
    return [
        record["invokeIdentityArn"]
        for payload in invoker.payloads
        for record in json.loads(payload)["Records"]
    ]


@pytest.mark.parametrize(
    ("configured", "role"), [("", f"{ROLES}/reader"), (f"{ROLES}/configured", f"{ROLES}/configured")]
)
def test_the_functions_own_role_is_in_the_events_unless_one_is_configured(configured: str, role: str) -> None:
    invoker = OwnLimit(SLOW)
    place = Site(sources={STREAM_ARN: stream(1)}, functions={"reader": invoker})

    async def script(_: object) -> None:
        await until(lambda: invoker.payloads != [])

    play(lambda: place.daemon(daemon_plan(mapping(role_arn=configured), functions=OWN)), script)
    assert roles(invoker) == [role]


def test_events_have_the_role_that_the_function_has_now() -> None:
    invoker, source = OwnLimit(SLOW, trouble=DENIED), stream(1)
    place = Site(sources={STREAM_ARN: source}, functions={"reader": invoker})

    async def script(_: object) -> None:
        await until(lambda: len(invoker.payloads) == 1)
        invoker.trouble = None
        await asyncio.sleep(REFRESH_S + 5)
        source.put(*records(2))
        await until(lambda: len(invoker.payloads) == 2)
        invoker.facts = replace(SLOW, role_arn=f"{ROLES}/another")
        await asyncio.sleep(REFRESH_S + 5)
        source.put(*records(3))
        await until(lambda: len(invoker.payloads) == 3)

    play(lambda: place.daemon(daemon_plan(mapping(), functions=OWN)), script)
    assert roles(invoker) == ["", f"{ROLES}/reader", f"{ROLES}/another"]


@pytest.mark.parametrize(
    ("visibility_s", "own_s", "configured_s", "short"),
    [(30, 60.0, None, True), (60, 60.0, None, False), (30, 60.0, 10.0, True), (5, 5.0, 30.0, False)],
)
def test_a_running_mapping_reports_a_queue_that_shows_messages_before_the_function_is_done(
    visibility_s: int, own_s: float, configured_s: float | None, short: bool
) -> None:
    invoker = OwnLimit(FunctionFacts(timeout_s=own_s))
    place = Site(sources={STANDARD: standard(visibility_s)}, functions={"reader": invoker})
    plan = mapping(kind=SourceKind.SQS, source_arn=STANDARD)
    functions = {"reader": replace(OWN["reader"], timeout_s=configured_s)}
    text = f"mapping {plan.mapping}: Queue visibility timeout: 30 seconds is less than Function timeout: 60 seconds"

    async def script(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        assert daemon.status().notes == ((text,) if short else ())

    play(lambda: place.daemon(daemon_plan(plan, functions=functions)), script)
    assert len(place.seen.of(VisibilityTooShort)) == short


def test_a_limit_that_is_raised_beyond_the_queues_is_reported_while_the_mapping_runs() -> None:
    invoker = OwnLimit(FunctionFacts(timeout_s=20.0))
    place = Site(sources={STANDARD: standard(30)}, functions={"reader": invoker})
    plan = mapping(kind=SourceKind.SQS, source_arn=STANDARD)

    async def script(_: object) -> None:
        await asyncio.sleep(10)
        invoker.facts = FunctionFacts(timeout_s=120.0)
        await asyncio.sleep(2 * REFRESH_S)
        invoker.facts = FunctionFacts(timeout_s=30.0)
        await asyncio.sleep(REFRESH_S)

    play(lambda: place.daemon(daemon_plan(plan, functions=OWN, tuning=STEADY)), script)
    assert [(each.visibility_s, each.timeout_s) for each in place.seen.of(VisibilityTooShort)] == [
        (30, 120.0)
    ]


def test_what_hides_messages_once_goes_by_the_limit_that_the_function_has_now() -> None:
    invoker, service = OwnLimit(FunctionFacts(timeout_s=60.0)), standard(60)
    place = Site(sources={STANDARD: service}, functions={"reader": invoker})
    plan = mapping(
        kind=SourceKind.SQS,
        source_arn=STANDARD,
        batch=BatchPolicy(records_max=10, window_s=5.0),
        queue=QueuePolicy(extend_visibility=False),
    )

    async def script(_: Daemon) -> None:
        service.send(1)
        await until(lambda: len(service.extensions) == 1)
        invoker.facts = FunctionFacts(timeout_s=120.0)
        await asyncio.sleep(REFRESH_S + 1)
        service.send(2)
        await until(lambda: len(service.extensions) == 2)

    play(lambda: place.daemon(daemon_plan(plan, functions=OWN)), script)
    # Window, limit and 30 s, as AWS does.
    assert [seconds for _, _, seconds in service.extensions if seconds] == [5 + 60 + 30, 5 + 120 + 30]


@pytest.mark.parametrize(("raised_s", "runs"), [(20.0, 1), (60.0, 0)])
def test_a_batch_that_gathers_at_a_stop_runs_if_the_present_limit_is_within_the_grace(
    raised_s: float, runs: int
) -> None:
    invoker, service = OwnLimit(FunctionFacts(timeout_s=20.0)), standard(60)
    place = Site(sources={STANDARD: service}, functions={"reader": invoker})
    plan = mapping(kind=SourceKind.SQS, source_arn=STANDARD, batch=BatchPolicy(records_max=10, window_s=30.0))

    async def script(_: Daemon) -> None:
        await asyncio.sleep(1)
        invoker.facts = FunctionFacts(timeout_s=raised_s)
        await asyncio.sleep(REFRESH_S)
        service.send(1)
        await until(lambda: any(found for _, _, found in service.receives))

    play(lambda: place.daemon(daemon_plan(plan, functions=OWN)), script)
    assert len(invoker.runs) == runs


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_that_always_fails_is_tried_eight_or_nine_times_in_a_minute(seed: int) -> None:
    function = FakeFunction(lambda _: FunctionError("ValueError", "never"), takes_s=0.5)
    place = Site(sources={STREAM_ARN: stream(1)}, functions={"reader": function})
    plan = mapping(retry=RetryPolicy(age_max_s=60.0))

    async def script(_: Daemon) -> None:
        await until(lambda: len(place.seen.of(Discarded)) == 1, within_s=100)

    play(lambda: place.daemon(daemon_plan(plan), seed=seed), script)
    assert len(function.calls) in {8, 9}


class Odd(OwnLimit):
    """A plug-in whose look does what no port may do."""

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._act = act

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        self.looks.append((now(), function_arn))
        await self._act()
        return self.facts


async def _raise_anything() -> None:
    raise KeyError("Timeout")


async def _cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def _leave() -> None:
    raise SystemExit(3)


async def _refuse_to_end() -> None:
    until_s = now() + 40
    while now() < until_s:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
    raise KeyError("at last")


@pytest.mark.parametrize("act", [_raise_anything, _cancel_itself, _leave, _refuse_to_end])
def test_whatever_a_look_does_the_mapping_runs_and_waits_as_long_as_any_function_runs(
    act: Callable[[], Awaitable[None]],
) -> None:
    invoker = Odd(act)
    place = Site(sources={STREAM_ARN: stream(1)}, functions={"reader": invoker})

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(invoker.runs) == 1)
        (note,) = daemon.status().notes
        assert "calls are given up after 900 s" in note
        await asyncio.sleep(3 * RETRY_S)
        assert len(invoker.looks) >= 3

    play(lambda: place.daemon(daemon_plan(mapping(), functions=OWN)), script)
