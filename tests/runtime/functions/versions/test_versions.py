"""Calls of versions and by aliases in whole daemons on virtual time, with mappings and the Invoke API."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.function_facts import FunctionFacts
from poller.domain.functions.alias_control import AliasChange, ShiftRequest
from poller.domain.functions.calls import FunctionAnswer, FunctionCall
from poller.domain.functions.shift_strategies import strategy
from poller.domain.functions.shifts import ShiftState
from poller.domain.functions.versions import AliasPlan, VersionPlan
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded, TimedOut, Unreachable
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import FUNCTION_PREFIX, MappingRow
from poller.domain.telemetry.daemon_events import AliasWeight, VersionCalled
from poller.rules.functions.aliases.choice import chosen
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, Site, daemon_plan, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeDestination, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import STANDARD, standard

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:reader"


class Version(FakeFunction):
    """The invoker of one version: it notes what it was called with, and answers as `answer` says."""

    def __init__(
        self, answer: Callable[[Invocation], Outcome] = lambda _: Succeeded(b'"ok"'), takes_s: float = 0.0
    ) -> None:
        super().__init__()
        self.answers = answer
        self.takes_s = takes_s
        self.got: list[Invocation] = []
        self.at: list[float] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.got.append(invocation)
        self.at.append(now())
        await asyncio.sleep(self.takes_s)
        return self.answers(invocation)

    @property
    def firsts(self) -> list[str]:
        """The choice text of each call."""
        return [each.choice for each in self.got]


def failing(_: Invocation) -> Outcome:
    return FunctionError("ValueError", "no")


def version(number: str, **changes: Any) -> VersionPlan:
    return VersionPlan(number=number, invoker="fake", settings={"code": number}, **changes)


def function(*numbers: str, aliases: dict[str, AliasPlan] | None = None, **changes: Any) -> FunctionPlan:
    return FunctionPlan(
        name="reader",
        invoker="fake",
        versions={number: version(number) for number in numbers},
        aliases={"live": AliasPlan(version="1")} if aliases is None else aliases,
        **changes,
    )


class Place(Site):
    """A site with a stream, and a fake for each version of the function `reader`."""

    def __init__(self, **versions: Version) -> None:
        self.versions: dict[str, Version] = {"latest": Version(), **versions}
        names = {f"reader:{name[1:]}": each for name, each in versions.items()}
        super().__init__(
            sources={STREAM_ARN: FakeStream()},
            functions={"reader": self.versions["latest"], **names},
            destinations={FAILED: FakeDestination()},
        )

    def calls(self) -> list[tuple[str, str, bool]]:
        """Alias, version and failure of each call that observers were told of."""
        return [(each.alias, each.version, each.failed) for each in self.seen.of(VersionCalled)]


def plan(made: FunctionPlan, qualifier: str = "live", worker: str = "worker-1", **changes: Any) -> DaemonPlan:
    arn = f"{ARN}:{qualifier}" if qualifier else ARN
    return daemon_plan(mapping(function_arn=arn, **changes), functions={"reader": made}, worker=worker)


async def ready(daemon: Daemon) -> None:
    await until(lambda: daemon.status().ready and daemon.status().complete)


async def call(daemon: Daemon, qualifier: str = "", **event: Any) -> FunctionAnswer:
    asked = FunctionCall(function="reader", qualifier=qualifier, payload=json.dumps(event).encode())
    return await daemon.control.calls.call(asked)


def version_of(answer: FunctionAnswer) -> str:
    assert isinstance(answer.outcome, Succeeded | FunctionError | TimedOut), answer.outcome
    return answer.outcome.executed_version


def test_a_call_gets_the_version_that_its_qualifier_names_and_its_answer_says_which() -> None:
    place = Place(v1=Version(), v2=Version(failing))
    aliases = {
        "live": AliasPlan(version="1"),
        "next": AliasPlan(version="2"),
        "dev": AliasPlan(version="$LATEST"),
    }

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        found = {
            each: version_of(await call(daemon, each))
            for each in ("", "$LATEST", "1", "2", "live", "next", "dev")
        }
        assert found == {
            "": "$LATEST",
            "$LATEST": "$LATEST",
            "1": "1",
            "2": "2",
            "live": "1",
            "next": "2",
            "dev": "$LATEST",
        }
        # The function sees the ARN by which it was called.
        assert [each.function_arn for each in place.versions["v1"].got] == [f"{ARN}:1", f"{ARN}:live"]
        assert place.calls()[-3:] == [("live", "1", False), ("next", "2", True), ("dev", "$LATEST", False)]
        with pytest.raises(ApiError) as refused:
            await call(daemon, "gone")
        assert refused.value.fault is ApiErrorType.MISSING
        told = {(e.alias, e.version, e.weight) for e in place.seen.of(AliasWeight)}
        assert told == {("live", "1", 1.0), ("next", "2", 1.0), ("dev", "$LATEST", 1.0)}

    play(lambda: place.daemon(plan(function("1", "2", aliases=aliases))), script)


def test_weights_split_calls_and_batches_by_a_hash_that_keeps_retries_on_their_version() -> None:
    tries: Counter[str] = Counter()

    def twice(invocation: Invocation) -> Outcome:
        tries[invocation.choice] += 1
        return failing(invocation) if tries[invocation.choice] < 3 else Succeeded(b"")

    place = Place(v1=Version(twice), v2=Version(twice))
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)
    aliases = {"live": AliasPlan(version="1", weights={"2": 0.4})}
    one = BatchPolicy(records_max=1)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        stream.put(*records(*range(1, 41)))
        await until(lambda: sum(each == 3 for each in tries.values()) == 40, within_s=3600)
        first, second = place.versions["v1"].firsts, place.versions["v2"].firsts
        assert not set(first) & set(second)
        assert set(second) == {each for each in tries if chosen("1", {"2": 0.4}, each) == "2"}
        assert 5 < len(set(second)) < 30
        # In order, although the records are spread over two versions.
        assert list(tries) == [str(number) for number in range(1, 41)]

    play(lambda: place.daemon(plan(function("1", "2", aliases=aliases), batch=one)), script)


def test_a_failure_document_names_the_version_that_failed() -> None:
    place = Place(v1=Version(failing))
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)
    changes: dict[str, Any] = {"retry": RetryPolicy(retries_max=0), "destination": FAILED}

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        stream.put(*records(1))
        await until(lambda: bool(place.destinations[FAILED].notices))
        document = json.loads(place.destinations[FAILED].notices[0].document)
        assert document["responseContext"]["executedVersion"] == "1"
        assert document["requestContext"]["functionArn"] == f"{ARN}:live"

    play(lambda: place.daemon(plan(function("1"), **changes)), script)


def test_a_mapping_whose_qualifier_names_nothing_is_unreachable_with_the_names_that_there_are() -> None:
    place = Place(v1=Version())
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        stream.put(*records(1))
        await asyncio.sleep(10)
        assert place.versions["v1"].got == place.versions["latest"].got == []
        (status,) = daemon.status().mappings
        text = json.dumps([str(each) for each in (status, *place.seen.events)])
        assert "reader has no version or alias gone; it has $LATEST, 1, live" in text
        await daemon.control.calls.aliases.create("reader", "gone", _to("1"))
        await until(lambda: bool(place.versions["v1"].got), within_s=120)

    play(lambda: place.daemon(plan(function("1"), "gone")), script)


def _to(number: str) -> AliasChange:
    return AliasChange(version=number)


def test_a_version_has_its_own_time_limit_and_the_others_the_functions() -> None:
    place = Place(v1=Version(), v2=Version())
    made = function("1", timeout_s=5.0)
    made = replace(made, versions={**made.versions, "2": version("2", timeout_s=60.0)})

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        for qualifier in ("", "1", "2"):
            await call(daemon, qualifier)
        got = [place.versions[each].got[-1].timeout_s for each in ("latest", "v1", "v2")]
        assert got == [5.0, 5.0, 60.0]

    play(lambda: place.daemon(plan(made)), script)


def test_a_version_that_cannot_be_opened_harms_no_other_one_and_is_tried_again() -> None:
    place = Place(v1=Version(), v2=Version())
    place.opening["reader:2"] = [ServiceUnavailable("not yet"), ServiceUnavailable("not yet")]
    aliases = {"live": AliasPlan(version="1"), "next": AliasPlan(version="2")}

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        assert version_of(await call(daemon, "live")) == "1"
        failed = (await call(daemon, "next")).outcome
        assert isinstance(failed, Unreachable)
        assert failed.reason == "version 2 of reader cannot be opened: not yet"
        assert "version 2 of reader cannot be opened: not yet" in daemon.status().notes
        views = daemon.control.calls.aliases.versions("reader")
        assert [(each.number, each.trouble) for each in views] == [
            ("$LATEST", ""),
            ("1", ""),
            ("2", "not yet"),
        ]
        await asyncio.sleep(20)
        assert version_of(await call(daemon, "next")) == "2"
        assert daemon.control.calls.aliases.versions("reader")[2].trouble == ""
        assert sorted(place.open_now).count("reader:2") == 1

    play(lambda: place.daemon(plan(function("1", "2", aliases=aliases))), script)
    assert not [each for each in place.open_now if each.startswith("reader")]


def test_versions_are_opened_when_they_are_needed_and_closed_when_idle() -> None:
    place = Place(v1=Version(), v2=Version())

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        assert "reader:1" in place.open_now
        assert "reader:2" not in place.open_now
        await call(daemon, "2")
        assert "reader:2" in place.open_now
        await asyncio.sleep(700)
        assert "reader:2" not in place.open_now
        assert "reader:1" in place.open_now
        assert version_of(await call(daemon, "2")) == "2"

    play(lambda: place.daemon(plan(function("1", "2"))), script)


def test_a_version_that_ran_with_other_settings_is_not_called_and_no_record_is_lost() -> None:
    place = Place(v1=Version())
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)
    changed = replace(version("1"), settings={"code": "other"})
    made = function("1")

    async def first(daemon: Daemon) -> None:
        await ready(daemon)
        stream.put(*records(1))
        await until(lambda: len(place.versions["v1"].got) == 1)
        await asyncio.sleep(5)

    async def second(daemon: Daemon) -> None:
        await ready(daemon)
        stream.put(*records(2))
        await asyncio.sleep(30)
        assert len(place.versions["v1"].got) == 1
        (note,) = [each for each in daemon.status().notes if "other settings" in each]
        assert note.startswith("version 1 of reader has other settings than when it was called first")
        assert "give the new settings another number in functions.reader.versions" in note
        assert "other settings" in daemon.control.calls.aliases.versions("reader")[1].trouble
        daemon.replan(plan(made))
        await until(lambda: len(place.versions["v1"].got) == 2, within_s=120)
        assert place.versions["v1"].firsts[-1] == "2"

    play(lambda: place.daemon(plan(made)), first)
    play(lambda: place.daemon(plan(replace(made, versions={"1": changed}))), second)


def test_an_alias_of_the_api_outlives_the_daemon_and_one_of_the_file_follows_the_file() -> None:
    place = Place(v1=Version(), v2=Version())

    async def first(daemon: Daemon) -> None:
        await ready(daemon)
        aliases = daemon.control.calls.aliases
        await aliases.create("reader", "mine", _to("2"))
        changed = await aliases.update("reader", "live", _to("2"))
        assert (changed.version, changed.from_file) == ("2", True)
        assert [version_of(await call(daemon, each)) for each in ("mine", "live")] == ["2", "2"]
        with pytest.raises(ApiError, match="comes from the configuration file"):
            await aliases.delete("reader", "live")

    async def second(daemon: Daemon) -> None:
        await ready(daemon)
        assert [version_of(await call(daemon, each)) for each in ("mine", "live")] == ["2", "2"]

    async def third(daemon: Daemon) -> None:
        await ready(daemon)
        assert [version_of(await call(daemon, each)) for each in ("mine", "live")] == ["2", "$LATEST"]
        await daemon.control.calls.aliases.delete("reader", "mine")
        with pytest.raises(ApiError):
            await call(daemon, "mine")

    made = function("1", "2")
    play(lambda: place.daemon(plan(made)), first)
    play(lambda: place.daemon(plan(made)), second)
    other = function("1", "2", aliases={"live": AliasPlan(version="$LATEST")})
    play(lambda: place.daemon(plan(other)), third)


class Service(Version):
    """A version at a service, which has settings for it and knows its own qualifiers."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self.timeout_s = timeout_s
        self.asked: list[str] = []

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        self.asked.append(function_arn)
        return FunctionFacts(timeout_s=self.timeout_s)


def test_a_service_is_called_by_the_arn_of_the_version_and_other_qualifiers_stay_its_own() -> None:
    place = Place(v1=Service(60.0), v2=Service(90.0))
    latest = place.functions["reader"] = Service(30.0)
    aliases = {"live": AliasPlan(version="1", weights={"2": 0.5})}
    made = replace(function("1", "2", aliases=aliases), invoker="lambda")
    made = replace(
        made, versions={each: replace(found, invoker="lambda") for each, found in made.versions.items()}
    )

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        answers = [version_of(await call(daemon, "live", n=number)) for number in range(20)]
        assert set(answers) == {"1", "2"}
        for name, number in (("v1", "1"), ("v2", "2")):
            found = place.versions[name]
            assert isinstance(found, Service)
            assert {each.function_arn for each in found.got} == {f"{ARN}:{number}"}
            assert set(found.asked) == {f"{ARN}:{number}"}
            assert {each.timeout_s for each in found.got} == {90.0}
        await call(daemon, "theirs")
        assert latest.got[-1].function_arn == f"{ARN}:theirs"

    play(lambda: place.daemon(plan(made)), script)


def test_a_version_that_opens_slowly_is_not_reported_as_timed_out_and_counts_as_no_failure() -> None:
    place = Place(v1=Version(), v2=Version())
    place.opening_s["reader:2"] = 25.0
    made = function("1", "2", timeout_s=1.0)
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        outcome = (await call(daemon, "2")).outcome
        assert outcome == Unreachable("version 2 of reader is not open yet")
        assert place.calls() == []
        stream.put(*records(1))
        await until(lambda: bool(place.versions["v2"].got), within_s=60)
        await asyncio.sleep(5)
        assert place.calls() == [("", "2", False)]
        assert [each.choice for each in place.versions["v2"].got] == ["1"]

    play(lambda: place.daemon(plan(made, "2")), script)


def test_an_alias_of_the_api_never_leads_to_the_newest_code_because_its_version_is_gone_from_the_file() -> (
    None
):
    place = Place(v1=Version())

    async def first(daemon: Daemon) -> None:
        await ready(daemon)
        await daemon.control.calls.aliases.create("reader", "mine", _to("1"))

    async def second(daemon: Daemon) -> None:
        await ready(daemon)
        outcome = (await call(daemon, "mine")).outcome
        assert isinstance(outcome, Unreachable)
        assert outcome.reason.startswith(
            "the alias mine of reader leads to version 1, which is not configured"
        )
        assert version_of(await call(daemon)) == "$LATEST"
        assert len(place.versions["latest"].got) == 1

    play(lambda: place.daemon(plan(function("1", aliases={}), "")), first)
    play(lambda: place.daemon(plan(function(aliases={}), "")), second)


def test_a_function_at_a_service_gets_aliases_here_only_with_versions_here() -> None:
    place = Place()
    place.functions["reader"] = Service(30.0)
    made = replace(function(aliases={}), invoker="lambda")

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        with pytest.raises(ApiError, match="has its versions and aliases at AWS") as refused:
            await daemon.control.calls.aliases.create("reader", "mine", _to("$LATEST"))
        assert refused.value.fault is ApiErrorType.PARAMETER

    play(lambda: place.daemon(plan(made, "")), script)


def test_a_service_is_asked_about_the_version_of_an_alias_before_a_mapping_is_made() -> None:
    place = Place(v1=Service(60.0), v2=Service(20.0))
    place.functions["reader"] = Service(30.0)
    place.sources[STANDARD] = standard(30)
    aliases = {"live": AliasPlan(version="1")}
    made = replace(function("1", "2", aliases=aliases), invoker="lambda")
    made = replace(
        made, versions={each: replace(found, invoker="lambda") for each, found in made.versions.items()}
    )

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await daemon.control.calls.aliases.create("reader", "mine", _to("2"))
        request = {"FunctionName": "reader:mine", "EventSourceArn": STANDARD, "Enabled": False}
        view = await daemon.control.create(request)
        assert view.function_arn == f"{ARN}:mine"
        found = place.versions["v2"]
        assert isinstance(found, Service)
        assert set(found.asked) == {f"{ARN}:2"}
        with pytest.raises(ApiError, match="is less than Function timeout: 60 seconds"):
            await daemon.control.create({**request, "FunctionName": "reader:live"})

    play(lambda: place.daemon(plan(made, "")), script)


def test_a_row_that_cannot_be_read_holds_up_no_shift_of_another_function() -> None:
    place = Place(v1=Version(), v2=Version())
    broken = replace(function("1"), name="broken")
    place.functions["broken"] = Version()
    given = plan(function("1", "2"), "")

    async def script(daemon: Daemon) -> None:
        key = MappingId(f"{FUNCTION_PREFIX}broken")
        await place.store.create(MappingRow(key, Epoch(0.0), document={"aliases": "none"}))
        await ready(daemon)
        request = ShiftRequest(to="2", strategy=strategy("AllAtOnce"))
        await daemon.control.calls.aliases.shift("reader", "live", request)
        await asyncio.sleep(10)
        shown = daemon.control.calls.aliases.alias("reader", "live")
        assert shown.shift is not None
        assert (shown.version, shown.shift.state) == ("2", ShiftState.DONE)

    functions = {"broken": broken, **given.functions}
    play(lambda: place.daemon(replace(given, functions=functions)), script)
