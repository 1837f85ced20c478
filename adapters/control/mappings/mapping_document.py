"""Owns the mapping document: all 33 members of a mapping in AWS's order (aws-behaviour#mapping-document)."""

from collections.abc import Mapping, Sequence
from typing import Any

from poller.config.members import TABLE, JsonType, Member, SourceGroup, document_order, inside
from poller.domain.arns import Arn, FunctionName
from poller.domain.mapping_api import MappingView
from poller.domain.untrusted.credentials import hide_path
from poller.domain.untrusted.numbers import MOMENT_MAX, number

MEMBERS = document_order()
STREAM_REASON = "User action"
QUEUE_REASON = "USER_INITIATED"
NOTHING_YET = "No records processed"


def mapping(view: MappingView, table: Sequence[Member] = TABLE) -> dict[str, Any]:
    """Returns all members in order; those that are not set are None."""
    group = SourceGroup.QUEUES if is_queue(view) else SourceGroup.STREAMS
    found = _given(view.parameters, "", group, table) | _of_mapping(view, group)
    return {name: found.get(name) for name in document_order(table)}


def is_queue(view: MappingView) -> bool:
    """Whether the source is a queue. Some members of the document depend on it."""
    return Arn.parse(view.parameters["EventSourceArn"]).service == "sqs"


def mapping_arn(view: MappingView) -> str:
    """Returns the mapping's own ARN, in the partition, region and account of its function."""
    function = Arn.parse(view.function_arn)
    base = f"arn:{function.partition}:lambda:{function.region}:{function.account}"
    return f"{base}:event-source-mapping:{view.mapping}"


def function_of(view: MappingView) -> FunctionName:
    """Returns the name of the mapping's function, with its qualifier if one was given."""
    return FunctionName.parse(view.function_arn)


def seconds(moment: float) -> float:
    """Returns epoch seconds, rounded to milliseconds."""
    return round(number(moment, most=MOMENT_MAX, default=0.0, clamp=True), 3)


def _given(
    parameters: Mapping[str, Any], path: str, group: SourceGroup, table: Sequence[Member]
) -> dict[str, Any]:
    """Returns the given values of the members inside `path` that this kind of source takes; None for empty ones."""
    return {
        name: _shown(parameters.get(name), member, group, table)
        for name, member in inside(path, table).items()
        if group in member.sources
    }


def _shown(value: Any, member: Member, group: SourceGroup, table: Sequence[Member]) -> Any:
    match member.type:
        case JsonType.OBJECT:
            found = _given(value or {}, member.path, group, table)
            return found if any(each is not None for each in found.values()) else None
        case JsonType.LIST:
            item = f"{member.path}[]"
            items = [
                _given(each, item, group, table) if isinstance(each, Mapping) else each
                for each in value or ()
            ]
            return items or None
        case JsonType.TEXT:
            return value or None
        case JsonType.MOMENT:
            return None if value is None else seconds(value)
        case _:
            return value


def _of_mapping(view: MappingView, group: SourceGroup) -> dict[str, Any]:
    """Returns the members that no request sets, and those that AWS shows in another form than a request gives them."""
    found = {
        "UUID": view.mapping,
        "FunctionArn": view.function_arn,
        "EventSourceMappingArn": mapping_arn(view),
        "State": view.state.value,
        "LastModified": seconds(view.last_modified),
        "FunctionResponseTypes": list(view.parameters.get("FunctionResponseTypes") or ()),
    }
    if group is SourceGroup.QUEUES:
        return found | {"StateTransitionReason": view.reason or QUEUE_REASON}
    failure = (view.parameters.get("DestinationConfig") or {}).get("OnFailure") or {}
    return found | {
        "StateTransitionReason": view.reason or STREAM_REASON,
        "LastProcessingResult": view.last_result or NOTHING_YET,
        "DestinationConfig": {
            "OnSuccess": None,
            # A URL, which only the configuration file can give, may contain a secret, so its path is hidden. An ARN stays as it is.
            "OnFailure": {"Destination": hide_path(failure.get("Destination") or "") or None},
        },
    }
