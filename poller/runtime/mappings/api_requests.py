"""Owns how create and update requests are read, merged into the existing mapping, and refused (aws-behaviour#updates)."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from poller.config.aws_validation import violations
from poller.config.mapping import EventSourceMapping
from poller.config.violations import answer
from poller.domain.arns import FunctionName
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import SourceKind
from poller.domain.records import Epoch, MappingId
from poller.domain.resources.resource import ResourceOrigin

TAGS_MAX = 50
"""AWS's limit for the tags of one mapping."""
VALUE_CHARS_MAX = 80

UNKNOWN = "The resource you requested does not exist."
NO_FUNCTION = "Function does not exist"
NO_QUEUE = (
    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
    "SQS Error Message: The specified queue does not exist."
)
QUEUE_DENIED = "The function execution role does not have permissions to call ReceiveMessage on SQS"
UPDATE_IN_USE = "Cannot update the event source mapping because it is in use."
DELETE_IN_USE = "Cannot delete the event source mapping because it is in use."
FROM_FILE = (
    "This event source mapping comes from the configuration file and cannot be changed through the API. "
    "Change the file; it is read again when it changes."
)

FROM_RESOURCE = (
    "This event source mapping comes from the custom resource {} and cannot be changed through the API. "
    "Change or delete the resource."
)

FIXED = frozenset({"EventSourceArn", "StartingPosition", "StartingPositionTimestamp", "Tags"})
"""Members that an update cannot change; AWS ignores them in the request (aws-behaviour#operations)."""
POLLERS = "ProvisionedPollerConfig"
DESTINATIONS = "DestinationConfig"


def created_by(request: Mapping[str, Any], *, now: Epoch) -> EventSourceMapping:
    """The mapping that a create request asks for; raises ApiError in AWS's order."""
    return _accepted(_known(request), now)


def updated_by(
    parameters: Mapping[str, Any], request: Mapping[str, Any], *, now: Epoch
) -> EventSourceMapping:
    """The mapping that results from `parameters` and an update request; raises ApiError.

    A member that is absent or null keeps its value. A given member replaces the value, and an empty one removes it. That is also
    true for ProvisionedPollerConfig, although a create request must not leave it empty. For DestinationConfig it is true for each
    of its members: without OnFailure the destination stays, and an OnFailure must have a Destination.
    """
    given = {name: value for name, value in _known(request).items() if name not in FIXED}
    if DESTINATIONS in given:
        said = {name: value for name, value in given[DESTINATIONS].items() if value is not None}
        given[DESTINATIONS] = {**(parameters.get(DESTINATIONS) or {}), **said}
    merged = {**parameters, **given}
    if merged.get(POLLERS) == {}:
        del merged[POLLERS]
    needed = (request.get(DESTINATIONS) or {}).get("OnFailure") is not None
    return _accepted(merged, now, destination_needed=needed)


def fixed_elsewhere(*, from_file: bool, origin: ResourceOrigin | None) -> ApiError | None:
    """The refusal of a change to a mapping that somebody else owns; None if the API may change it."""
    if from_file:
        return ApiError(ApiErrorType.CONFLICT, FROM_FILE)
    if origin is not None:
        return ApiError(ApiErrorType.CONFLICT, FROM_RESOURCE.format(origin.text))
    return None


def twin_text(source_arn: str, function: str, twin: MappingId, *, queue: bool) -> str:
    """AWS's text if another mapping has the same source and function. `function` is any form of its name."""
    name, rest = FunctionName.parse(function).name, "Please update or delete the existing mapping with UUID"
    if queue:
        return (
            f'An event source mapping with SQS arn (" {source_arn} ") and function (" {name} ") '
            f"already exists. {rest} {twin}"
        )
    return (
        f'The event source arn (" {source_arn} ") and function (" {name} ") '
        f"provided mapping already exists. {rest} {twin}"
    )


def denied_text(source_arn: str, kind: SourceKind) -> str:
    """AWS's text if reading the source is denied. Terraform recognises this text while it waits for permissions."""
    if kind is SourceKind.SQS:
        return QUEUE_DENIED
    actions = "DescribeStream, ListShards," if kind is SourceKind.KINESIS else "DescribeStream,"
    return (
        f"Cannot access stream {source_arn}. Please ensure the role can perform the GetRecords, GetShardIterator, "
        f"{actions} and ListStreams Actions on your stream in IAM."
    )


def with_tags(tags: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The tags after adding some; raises ApiError if there are too many."""
    found = {**tags, **more}
    if len(found) > TAGS_MAX:
        text = f"An event source mapping cannot have more than {TAGS_MAX} tags; these would be {len(found)}."
        raise ApiError(ApiErrorType.PARAMETER, text)
    return found


def without_tags(tags: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """The tags after removing some. Unknown keys are ignored."""
    away = set(keys)
    return {name: value for name, value in tags.items() if name not in away}


def _known(request: Mapping[str, Any]) -> dict[str, Any]:
    """The known members of a request, without nulls. AWS ignores unknown members."""
    names = EventSourceMapping.model_fields
    return {name: value for name, value in request.items() if name in names and value is not None}


def _accepted(
    parameters: Mapping[str, Any], now: Epoch, *, destination_needed: bool = False
) -> EventSourceMapping:
    try:
        mapping = EventSourceMapping.model_validate(parameters)
    except ValidationError as error:
        raise ApiError(ApiErrorType.VALIDATION, _constraint(error)) from None
    refused = answer(violations(mapping, now=now, destination_needed=destination_needed))
    if refused is not None:
        fault, text = refused
        raise ApiError(ApiErrorType(fault), text)
    with_tags({}, mapping.Tags or {})
    return mapping


def _constraint(error: ValidationError) -> str:
    """The text about the first value of a wrong type, in the style of AWS's texts."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part)[:1].lower() + str(part)[1:] for part in first["loc"])
    value = str(first["input"])[:VALUE_CHARS_MAX]
    return f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: {first['msg']}"
