"""Owns a mapping's wire form: all 33 members, in AWS's order (spec 10.2, 10.3)."""

from collections.abc import Mapping
from typing import Any

from poller.arns import Arn, FunctionName
from poller.control import MappingView

MEMBERS = (
    "StartingPosition",
    "SelfManagedEventSource",
    "ParallelizationFactor",
    "FilterCriteria",
    "FilterCriteriaError",
    "ProvisionedPollerConfig",
    "MetricsConfig",
    "LastModified",
    "LastProcessingResult",
    "DestinationConfig",
    "AmazonManagedKafkaEventSourceConfig",
    "SourceAccessConfigurations",
    "UUID",
    "MaximumBatchingWindowInSeconds",
    "BatchSize",
    "FunctionArn",
    "KMSKeyArn",
    "MaximumRetryAttempts",
    "ScalingConfig",
    "Topics",
    "EventSourceArn",
    "SelfManagedKafkaEventSourceConfig",
    "DocumentDBEventSourceConfig",
    "TumblingWindowInSeconds",
    "BisectBatchOnFunctionError",
    "EventSourceMappingArn",
    "State",
    "LoggingConfig",
    "MaximumRecordAgeInSeconds",
    "StartingPositionTimestamp",
    "Queues",
    "StateTransitionReason",
    "FunctionResponseTypes",
)
STREAM_REASON = "User action"
QUEUE_REASON = "USER_INITIATED"
NOTHING_YET = "No records processed"

_PLAIN = ("BatchSize", "MaximumBatchingWindowInSeconds", "EventSourceArn")
_STREAM = (
    "StartingPosition",
    "ParallelizationFactor",
    "MaximumRetryAttempts",
    "MaximumRecordAgeInSeconds",
    "TumblingWindowInSeconds",
    "BisectBatchOnFunctionError",
)


def mapping(view: MappingView) -> dict[str, Any]:
    """All members in order, unset ones None."""
    given = view.parameters
    queue = is_queue(view)
    found = {name: given.get(name) for name in _PLAIN}
    found |= _of_mapping(view, queue=queue)
    found |= _optional(given)
    found |= _of_queue(given) if queue else _of_stream(view)
    return {name: found.get(name) for name in MEMBERS}


def is_queue(view: MappingView) -> bool:
    """Whether the source is a queue; AWS words some members by it."""
    return Arn.parse(view.parameters["EventSourceArn"]).service == "sqs"


def mapping_arn(view: MappingView) -> str:
    """The mapping's own ARN, in the partition, region and account of its function."""
    function = Arn.parse(view.function_arn)
    base = f"arn:{function.partition}:lambda:{function.region}:{function.account}"
    return f"{base}:event-source-mapping:{view.mapping}"


def function_of(view: MappingView) -> FunctionName:
    """The function, with its qualifier as given."""
    return FunctionName.parse(view.function_arn)


def seconds(moment: float) -> float:
    """Epoch seconds with a fraction of milliseconds at most."""
    return round(float(moment), 3)


def _of_mapping(view: MappingView, *, queue: bool) -> dict[str, Any]:
    return {
        "UUID": view.mapping,
        "FunctionArn": view.function_arn,
        "EventSourceMappingArn": mapping_arn(view),
        "State": view.state.value,
        "StateTransitionReason": view.reason or (QUEUE_REASON if queue else STREAM_REASON),
        "LastModified": seconds(view.last_modified),
        "FunctionResponseTypes": list(view.parameters.get("FunctionResponseTypes") or ()),
    }


def _optional(given: Mapping[str, Any]) -> dict[str, Any]:
    """What either kind of source shows when it is set."""
    filters = (given.get("FilterCriteria") or {}).get("Filters") or ()
    metrics = (given.get("MetricsConfig") or {}).get("Metrics")
    return {
        "FilterCriteria": {"Filters": [{"Pattern": each.get("Pattern")} for each in filters]}
        if filters
        else None,
        "MetricsConfig": {"Metrics": list(metrics)} if metrics else None,
        "KMSKeyArn": given.get("KMSKeyArn") or None,
    }


def _of_queue(given: Mapping[str, Any]) -> dict[str, Any]:
    scaling, provisioned = given.get("ScalingConfig"), given.get("ProvisionedPollerConfig")
    return {
        "ScalingConfig": _members(scaling, "MaximumConcurrency"),
        "ProvisionedPollerConfig": _members(provisioned, "MinimumPollers", "MaximumPollers"),
    }


def _members(config: Mapping[str, Any] | None, *names: str) -> dict[str, Any] | None:
    """The members in AWS's order; None when none of them is set."""
    found = {name: (config or {}).get(name) for name in names}
    return found if any(value is not None for value in found.values()) else None


def _of_stream(view: MappingView) -> dict[str, Any]:
    given = view.parameters
    moment = given.get("StartingPositionTimestamp")
    failure = (given.get("DestinationConfig") or {}).get("OnFailure") or {}
    return {name: given.get(name) for name in _STREAM} | {
        "StartingPositionTimestamp": None if moment is None else seconds(moment),
        "LastProcessingResult": view.last_result or NOTHING_YET,
        "DestinationConfig": {
            "OnSuccess": None,
            "OnFailure": {"Destination": failure.get("Destination") or None},
        },
    }
