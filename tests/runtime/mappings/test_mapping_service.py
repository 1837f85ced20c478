"""Lambda's create, update, delete and tag requests: what they answer and refuse (aws-behaviour#mapping-api)."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import (
    AccessDenied,
    InvalidConfiguration,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.function_facts import FunctionFacts
from poller.domain.mapping_api import ApiErrorType
from poller.domain.plan import FunctionPlan
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingRow, MappingState
from poller.domain.telemetry.daemon_events import StoreFailed
from poller.runtime.daemon import Daemon
from poller.runtime.mappings.mapping_service import MappingService
from tests.runtime.daemons import daemon_plan, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.function_fakes import OwnLimit
from tests.runtime.mappings.controlled import (
    FIFO,
    QUEUE_REQUEST,
    READER,
    STREAM_REQUEST,
    UNKNOWN,
    S,
    controlled,
    plan,
    reaches,
    reader,
    refusal,
    site,
    view,
)
from tests.runtime.queues.queue_fakes import STANDARD, standard
from tests.virtual import EPOCH_BASE


def test_a_created_stream_mapping_goes_from_creating_to_enabled_and_runs() -> None:
    place = site()

    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST | {"Tags": {"team": "shop"}})
        assert made.state is S.CREATING
        assert made.reason == "User action"
        assert made.last_result == "No records processed"
        assert made.last_modified == pytest.approx(EPOCH_BASE + now(), abs=0.01)
        assert made.function_arn == READER
        assert made.tags == {"team": "shop"}
        assert MappingId(made.mapping)[14] == "4"
        assert not made.from_file
        await reaches(control, made.mapping, S.ENABLED)
        await until(lambda: reader(place).calls != [])
        assert (await view(control, made.mapping)).last_result == "OK"

    controlled(place, script)
    assert reader(place).calls == [[1, 2, 3, 4, 5]]


def test_a_stream_mapping_shows_every_default() -> None:
    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        assert made.parameters == STREAM_REQUEST | {
            "Enabled": True,
            "BatchSize": 100,
            "MaximumBatchingWindowInSeconds": 0,
            "ParallelizationFactor": 1,
            "MaximumRecordAgeInSeconds": -1,
            "MaximumRetryAttempts": -1,
            "BisectBatchOnFunctionError": False,
            "TumblingWindowInSeconds": 0,
            "DestinationConfig": {"OnFailure": {}},
            "FunctionResponseTypes": [],
        }

    controlled(site(), script)


def test_a_queue_mapping_shows_its_defaults_and_no_processing_result() -> None:
    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(
            QUEUE_REQUEST | {"ScalingConfig": {"MaximumConcurrency": 5}, "FilterCriteria": {"Filters": []}}
        )
        assert made.parameters == QUEUE_REQUEST | {
            "Enabled": True,
            "BatchSize": 10,
            "MaximumBatchingWindowInSeconds": 0,
            "FunctionResponseTypes": [],
            "ScalingConfig": {"MaximumConcurrency": 5},
        }
        assert (made.state, made.reason, made.last_result) == (S.CREATING, "USER_INITIATED", "")

    controlled(site(), script)


@pytest.mark.parametrize(
    ("request_", "answered"), [(STREAM_REQUEST, S.CREATING), (QUEUE_REQUEST, S.DISABLED)]
)
def test_a_mapping_created_disabled_is_disabled_and_reads_nothing(
    request_: Mapping[str, Any], answered: MappingState
) -> None:
    place = site()

    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create({**request_, "Enabled": False})
        assert made.state is answered
        await reaches(control, made.mapping, S.DISABLED)
        await asyncio.sleep(10)
        assert (await view(control, made.mapping)).state is S.DISABLED

    controlled(place, script)
    assert reader(place).calls == []
    assert place.open_now == []


CREATE_REFUSED: list[tuple[Mapping[str, Any], ApiErrorType, str]] = [
    (
        {"FunctionName": "nobody", "BatchSize": 10_001},
        ApiErrorType.VALIDATION,
        "1 validation error detected: Value '10001' at 'batchSize' failed to satisfy constraint: "
        "Member must have value less than or equal to 10000",
    ),
    ({"FunctionName": "nobody"}, ApiErrorType.PARAMETER, "Unrecognized event source."),
    (
        QUEUE_REQUEST | {"FunctionName": "nobody", "DestinationConfig": {"OnFailure": {"Destination": "x"}}},
        ApiErrorType.PARAMETER,
        "Unsupported DestinationConfig parameter for given event source mapping type.",
    ),
    (STREAM_REQUEST | {"FunctionName": "nobody"}, ApiErrorType.PARAMETER, "Function does not exist"),
    (
        STREAM_REQUEST | {"FunctionName": "nobody", "EventSourceArn": f"{STREAM_ARN}-gone"},
        ApiErrorType.PARAMETER,
        "Function does not exist",
    ),
    (
        QUEUE_REQUEST | {"BatchSize": 11},
        ApiErrorType.PARAMETER,
        "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
    ),
    (
        QUEUE_REQUEST | {"FilterCriteria": {"Filters": [{"Pattern": "null"}]}},
        ApiErrorType.PARAMETER,
        "Invalid filter pattern definition.",
    ),
    (
        QUEUE_REQUEST | {"EventSourceArn": FIFO, "MaximumBatchingWindowInSeconds": 1},
        ApiErrorType.PARAMETER,
        "Batching window is not supported for FIFO queues",
    ),
    (
        {"FunctionName": "reader", "EventSourceArn": STREAM_ARN},
        ApiErrorType.PARAMETER,
        "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
        "Member must not be null.",
    ),
    (
        QUEUE_REQUEST | {"ScalingConfig": {"MaximumConcurrency": 1}},
        ApiErrorType.VALIDATION,
        "1 validation error detected: Value '1' at 'scalingConfig.maximumConcurrency' failed to satisfy "
        "constraint: Member must have value greater than or equal to 2",
    ),
    (
        STREAM_REQUEST | {"Tags": {str(number): "x" for number in range(51)}},
        ApiErrorType.PARAMETER,
        "An event source mapping cannot have more than 50 tags; these would be 51.",
    ),
]


@pytest.mark.parametrize(("request_", "fault", "text"), CREATE_REFUSED)
def test_what_create_refuses_and_in_which_order(
    request_: Mapping[str, Any], fault: ApiErrorType, text: str
) -> None:
    place = site()

    async def script(control: MappingService, _: Daemon) -> None:
        assert await refusal(control.create(request_)) == (fault, text)
        assert control.views() == ()

    controlled(place, script)


SOURCE_TROUBLES: list[tuple[str, Exception, ApiErrorType, str]] = [
    (STREAM_ARN, ResourceMissing("gone"), ApiErrorType.PARAMETER, f"Stream not found: {STREAM_ARN}"),
    (
        STANDARD,
        ResourceMissing("gone"),
        ApiErrorType.PARAMETER,
        "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
        "SQS Error Message: The specified queue does not exist.",
    ),
    (
        STANDARD,
        AccessDenied("no"),
        ApiErrorType.PARAMETER,
        "The function execution role does not have permissions to call ReceiveMessage on SQS",
    ),
    (
        STREAM_ARN,
        AccessDenied("no"),
        ApiErrorType.PARAMETER,
        f"Cannot access stream {STREAM_ARN}. Please ensure the role can perform the GetRecords, GetShardIterator, "
        "DescribeStream, ListShards, and ListStreams Actions on your stream in IAM.",
    ),
    (STREAM_ARN, InvalidConfiguration(["no region"]), ApiErrorType.PARAMETER, "no region"),
    (
        STANDARD,
        ServiceThrottled("slow down"),
        ApiErrorType.SERVICE,
        "The event source could not be looked up: slow down",
    ),
]


@pytest.mark.parametrize(("arn", "trouble", "fault", "text"), SOURCE_TROUBLES)
def test_the_source_has_to_be_there(arn: str, trouble: Exception, fault: ApiErrorType, text: str) -> None:
    place = site()
    place.opening[arn] = [trouble]
    request = STREAM_REQUEST if arn == STREAM_ARN else QUEUE_REQUEST

    async def script(control: MappingService, _: Daemon) -> None:
        assert await refusal(control.create(request)) == (fault, text)
        await control.create(request)

    controlled(place, script)


def test_a_queue_whose_messages_come_again_too_early_is_refused_and_equal_times_are_not() -> None:
    place = site()
    functions = {
        name: FunctionPlan(name=name, invoker="fake", timeout_s=timeout_s)
        for name, timeout_s in (("worker", 31.0), ("reader", 30.0))
    }

    async def script(control: MappingService, _: Daemon) -> None:
        text = "Queue visibility timeout: 30 seconds is less than Function timeout: 31 seconds"
        assert await refusal(control.create(QUEUE_REQUEST)) == (ApiErrorType.PARAMETER, text)
        made = await control.create(QUEUE_REQUEST | {"FunctionName": "reader", "Enabled": False})
        assert await refusal(control.update(made.mapping, {"FunctionName": "worker"})) == (
            ApiErrorType.PARAMETER,
            text,
        )

    controlled(place, script, given=daemon_plan(functions=functions))


def test_an_unconfigured_function_exists_if_the_default_invoker_says_so() -> None:
    place = site()
    place.known_functions = {f"{READER}-2:live"}
    place.functions["reader-2"] = FakeFunction()

    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST | {"FunctionName": "reader-2:live"})
        assert made.function_arn == f"{READER}-2:live"
        text = ApiErrorType.PARAMETER, "Function does not exist"
        assert await refusal(control.create(STREAM_REQUEST | {"FunctionName": "reader-2:test"})) == text

    controlled(place, script)


def test_trouble_while_a_function_is_looked_up_is_no_answer() -> None:
    place = site()
    place.opening["nobody"] = [ServiceUnavailable("no connection")]

    async def script(control: MappingService, _: Daemon) -> None:
        text = "The function could not be looked up: no connection"
        assert await refusal(control.create(STREAM_REQUEST | {"FunctionName": "nobody"})) == (
            ApiErrorType.SERVICE,
            text,
        )

    controlled(place, script)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            STREAM_REQUEST,
            f'The event source arn (" {STREAM_ARN} ") and function (" reader ") provided mapping already '
            "exists. Please update or delete the existing mapping with UUID {}",
        ),
        (
            QUEUE_REQUEST,
            f'An event source mapping with SQS arn (" {STANDARD} ") and function (" worker ") already '
            "exists. Please update or delete the existing mapping with UUID {}",
        ),
    ],
)
def test_the_same_qualifier_twice_conflicts(request_: Mapping[str, Any], text: str) -> None:
    async def script(control: MappingService, _: Daemon) -> None:
        first = await control.create(request_)
        whole = first.function_arn
        for same in (request_["FunctionName"], whole):
            again = {**request_, "FunctionName": same}
            assert await refusal(control.create(again)) == (ApiErrorType.CONFLICT, text.format(first.mapping))
        others = []
        for qualifier in ("$LATEST", "1", "live"):
            await asyncio.sleep(0.01)
            request = {**request_, "FunctionName": f"{whole}:{qualifier}", "Enabled": False}
            others.append(await control.create(request))
        assert [each.function_arn for each in others] == [
            f"{whole}:{qualifier}" for qualifier in ("$LATEST", "1", "live")
        ]
        assert [each.mapping for each in control.views()] == [
            first.mapping,
            *(each.mapping for each in others),
        ]

    controlled(site(), script)


def test_a_mapping_of_the_file_is_shown_and_refuses_changes() -> None:
    place = site()
    document = STREAM_REQUEST | {"BatchSize": 7}
    given = replace(plan(), mappings=(mapping(),), documents={mapping().mapping: document})

    async def script(control: MappingService, _: Daemon) -> None:
        shown = await view(control, mapping().mapping)
        assert (shown.from_file, shown.parameters["BatchSize"], shown.state) == (True, 7, S.ENABLED)
        for change in (
            control.update(mapping().mapping, {"BatchSize": 1}),
            control.delete(mapping().mapping),
            control.tag(mapping().mapping, {"a": "b"}),
            control.untag(mapping().mapping, ("a",)),
        ):
            fault, text = await refusal(change)
            assert (fault, "configuration file" in text) == (ApiErrorType.CONFLICT, True)
        fault, text = await refusal(control.create(STREAM_REQUEST))
        assert (fault, mapping().mapping in text) == (ApiErrorType.CONFLICT, True)

    controlled(place, script, given=given)


def test_an_unknown_mapping_is_reported_as_such() -> None:
    async def script(control: MappingService, _: Daemon) -> None:
        text = ApiErrorType.MISSING, "The resource you requested does not exist."
        assert await refusal(control.update(UNKNOWN, {"BatchSize": 1})) == text
        assert await refusal(control.delete(UNKNOWN)) == text
        assert await refusal(control.tag(UNKNOWN, {"a": "b"})) == text

    controlled(site(), script)


def test_an_update_keeps_what_it_does_not_name_and_clears_what_it_empties() -> None:
    place = site()

    async def script(control: MappingService, _: Daemon) -> None:
        failed = "arn:aws:sqs:eu-west-1:111122223333:failed"
        pattern = {"Filters": [{"Pattern": '{"data":{"keep":["yes"]}}'}]}
        made = await control.create(
            STREAM_REQUEST
            | {
                "Enabled": False,
                "BatchSize": 5,
                "FilterCriteria": pattern,
                "DestinationConfig": {"OnFailure": {"Destination": failed}},
                "KMSKeyArn": "arn:aws:kms:eu-west-1:111122223333:key/1",
                "FunctionResponseTypes": ["ReportBatchItemFailures"],
            }
        )
        await asyncio.sleep(1)
        kept = await control.update(made.mapping, {"BatchSize": None, "MaximumRetryAttempts": 3})
        assert kept.parameters == {**made.parameters, "MaximumRetryAttempts": 3}
        assert (made.before, kept.before) == (None, made.parameters)
        assert kept.last_modified == pytest.approx(made.last_modified + 1)
        await asyncio.sleep(1)
        cleared = await control.update(
            made.mapping,
            {
                "FilterCriteria": {},
                "DestinationConfig": {"OnFailure": {"Destination": ""}},
                "KMSKeyArn": "",
                "FunctionResponseTypes": [],
                "StartingPosition": "LATEST",
                "EventSourceArn": "arn:aws:kinesis:eu-west-1:111122223333:stream/other",
            },
        )
        assert cleared.parameters == STREAM_REQUEST | {
            "Enabled": False,
            "BatchSize": 5,
            "MaximumBatchingWindowInSeconds": 0,
            "ParallelizationFactor": 1,
            "MaximumRecordAgeInSeconds": -1,
            "MaximumRetryAttempts": 3,
            "BisectBatchOnFunctionError": False,
            "TumblingWindowInSeconds": 0,
            "DestinationConfig": {"OnFailure": {}},
            "FunctionResponseTypes": [],
        }

    controlled(place, script)


def test_a_refused_update_changes_nothing() -> None:
    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(QUEUE_REQUEST | {"Enabled": False})
        await asyncio.sleep(5)
        fault, _text = await refusal(control.update(made.mapping, {"BatchSize": 11}))
        assert fault is ApiErrorType.PARAMETER
        assert await view(control, made.mapping) == made

    controlled(site(), script)


def test_an_update_of_the_function_points_the_mapping_elsewhere() -> None:
    place = site()
    place.functions["other"] = FakeFunction()
    functions = {name: FunctionPlan(name=name, invoker="fake") for name in ("reader", "other")}

    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        await until(lambda: reader(place).calls != [])
        moved = await control.update(made.mapping, {"FunctionName": "other"})
        assert (moved.function_arn, moved.state) == (READER.replace("reader", "other"), S.UPDATING)
        stream = place.sources[STREAM_ARN]
        assert isinstance(stream, FakeStream)
        stream.put(*records(6, 7))
        other = place.functions["other"]
        assert isinstance(other, FakeFunction)
        await until(lambda: other.calls == [[6, 7]])
        assert await refusal(control.update(made.mapping, {"FunctionName": "nobody"})) == (
            ApiErrorType.PARAMETER,
            "Function does not exist",
        )

    controlled(place, script, given=daemon_plan(functions=functions))
    assert reader(place).calls == [[1, 2, 3, 4, 5]]


def test_an_update_to_what_another_mapping_connects_conflicts() -> None:
    async def script(control: MappingService, _: Daemon) -> None:
        first = await control.create(STREAM_REQUEST)
        second = await control.create(STREAM_REQUEST | {"FunctionName": "reader:1", "Enabled": False})
        fault, text = await refusal(control.update(second.mapping, {"FunctionName": "reader"}))
        assert (fault, first.mapping in text) == (ApiErrorType.CONFLICT, True)

    controlled(site(), script)


def test_tags_are_added_replaced_and_removed_and_leave_last_modified() -> None:
    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(QUEUE_REQUEST | {"Enabled": False, "Tags": {"a": "1", "b": "2"}})
        await asyncio.sleep(3)
        await control.tag(made.mapping, {"b": "3", "c": "4"})
        await control.untag(made.mapping, ("a", "unknown"))
        shown = await view(control, made.mapping)
        assert shown.tags == {"b": "3", "c": "4"}
        assert "Tags" not in shown.parameters
        assert shown.last_modified == made.last_modified
        fault, _text = await refusal(control.tag(made.mapping, {str(number): "" for number in range(50)}))
        assert fault is ApiErrorType.PARAMETER

    controlled(site(), script)


@pytest.mark.parametrize(
    ("trouble", "fault", "text"),
    [
        (ServiceThrottled("slow down"), ApiErrorType.THROTTLED, "Rate exceeded"),
        (ServiceUnavailable("no answer"), ApiErrorType.SERVICE, "The store is in trouble: no answer"),
    ],
)
def test_trouble_of_the_store_refuses_a_change_and_lets_everything_run(
    trouble: PortError, fault: ApiErrorType, text: str
) -> None:
    place = site()
    store = Troubled(place.store)

    async def script(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        await daemon.control.create(STREAM_REQUEST)
        store.trouble = [trouble] * 1000
        assert await refusal(daemon.control.create(QUEUE_REQUEST)) == (fault, text)
        await until(lambda: reader(place).calls != [])
        await until(lambda: daemon.status().notes != ())
        assert daemon.status().notes == (f"store: {trouble.reason}",)
        store.trouble.clear()
        await until(lambda: daemon.status().notes == ())

    play(lambda: place.daemon(plan(), store=store), script)
    assert {event.error for event in place.seen.of(StoreFailed)} == {type(trouble).__name__}


class Troubled(MemoryStore):
    """A memory store whose next listings of mappings fail."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self.__dict__.update(store.__dict__)
        self.trouble: list[PortError] = []

    async def mappings(self) -> list[MappingRow]:
        """All rows, or trouble."""
        if self.trouble:
            raise self.trouble.pop(0)
        return list(await super().mappings())


def test_a_definition_that_cannot_be_read_is_a_note() -> None:
    place = site()

    async def script(control: MappingService, daemon: Daemon) -> None:
        await place.store.create(
            MappingRow(MappingId(f"api:{UNKNOWN}"), fixed=Epoch(EPOCH_BASE), document={"odd": 1})
        )
        text = f"the definition of mapping api:{UNKNOWN} cannot be read"
        await until(lambda: any(text in note for note in daemon.status().notes))
        await control.create(STREAM_REQUEST)

    controlled(place, script)


def test_a_mapping_of_the_file_wins_over_one_of_the_api_that_connects_the_same() -> None:
    place = site()

    async def script(control: MappingService, daemon: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        await until(lambda: reader(place).calls != [])
        given = replace(plan(), mappings=(mapping(),), documents={mapping().mapping: STREAM_REQUEST})
        daemon.replan(given)
        await reaches(control, mapping().mapping, S.ENABLED)
        assert (await view(control, made.mapping)).state is S.DISABLED
        assert daemon.status().notes == (
            f"mapping {made.mapping}: the configuration file's mapping {mapping().mapping} connects the same; "
            "delete one of them",
        )
        await control.delete(made.mapping)
        await until(lambda: len(control.views()) == 1)

    controlled(place, script)


def test_nothing_is_changed_before_the_daemon_is_open() -> None:
    async def script(daemon: Daemon) -> None:
        fault, _ = await refusal(daemon.control.create(STREAM_REQUEST))
        assert fault is ApiErrorType.SERVICE
        assert daemon.control.views() == ()

    place = site()
    play(lambda: place.daemon(plan()), script)


OWN_LIMITS: list[tuple[int, float, float | None, bool]] = [
    (5, 5.0, None, True),
    (30, 60.0, None, False),
    (60, 60.0, None, True),
    (30, 60.0, 10.0, False),
    (5, 5.0, 30.0, True),
]
"""The queue's visibility timeout, the function's own limit, the configured one; whether the mapping is made."""


@pytest.mark.parametrize("configured", [True, False], ids=["configured", "default invoker"])
@pytest.mark.parametrize(("visibility_s", "own_s", "configured_s", "made"), OWN_LIMITS)
def test_a_queue_is_compared_with_the_functions_own_time_limit(
    visibility_s: int, own_s: float, configured_s: float | None, made: bool, configured: bool
) -> None:
    place = site()
    place.sources[STANDARD] = standard(visibility_s)
    place.functions["own"] = OwnLimit(FunctionFacts(timeout_s=own_s))
    functions = {"worker": FunctionPlan(name="worker", invoker="fake", timeout_s=1.0)}
    if configured:
        functions["own"] = FunctionPlan(name="own", invoker="own", timeout_s=configured_s)
    text = (
        f"Queue visibility timeout: {visibility_s} seconds is less than Function timeout: {own_s:g} seconds"
    )

    async def script(control: MappingService, _: Daemon) -> None:
        other = await control.create(QUEUE_REQUEST | {"Enabled": False})
        create = QUEUE_REQUEST | {"FunctionName": "own", "Enabled": False}
        if not made:
            assert await refusal(control.create(create)) == (ApiErrorType.PARAMETER, text)
            assert await refusal(control.update(other.mapping, {"FunctionName": "own"})) == (
                ApiErrorType.PARAMETER,
                text,
            )
            await control.update(other.mapping, {"BatchSize": 5})
            return
        first = await control.create(create)
        await control.delete(first.mapping)
        await until(lambda: len(control.views()) == 1)
        assert (await control.update(other.mapping, {"FunctionName": "own"})).function_arn.endswith(":own")

    controlled(place, script, given=daemon_plan(functions=functions, default_invoker="own"))


def test_a_function_that_its_service_does_not_have_does_not_exist_even_if_it_is_configured() -> None:
    place = site()
    place.functions["own"] = OwnLimit(trouble=ResourceMissing("lambda GetFunctionConfiguration: none"))
    functions = {"own": FunctionPlan(name="own", invoker="own")}

    async def script(control: MappingService, _: Daemon) -> None:
        refused = await refusal(control.create(QUEUE_REQUEST | {"FunctionName": "own"}))
        assert refused == (ApiErrorType.PARAMETER, "Function does not exist")

    controlled(place, script, given=daemon_plan(functions=functions))


@pytest.mark.parametrize("trouble", [AccessDenied("no"), ServiceThrottled("slow down")])
def test_a_configured_function_that_cannot_be_looked_up_is_taken_and_its_queue_not_compared(
    trouble: PortError,
) -> None:
    place = site()
    place.functions["own"] = OwnLimit(FunctionFacts(timeout_s=60.0), trouble=trouble)
    functions = {"own": FunctionPlan(name="own", invoker="own")}

    async def script(control: MappingService, daemon: Daemon) -> None:
        made = await control.create(QUEUE_REQUEST | {"FunctionName": "own"})
        await reaches(control, made.mapping, S.ENABLED)
        (note,) = daemon.status().notes
        assert "calls are given up after 900 s" in note

    controlled(place, script, given=daemon_plan(functions=functions))
