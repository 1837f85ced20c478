"""Owns what create and update requests mean: how they are read, merged into what is there, and refused (spec 2, 10.5, 10.6)."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from poller.arns import FunctionName
from poller.control import Fault, Refused
from poller.mapping import EventSourceMapping
from poller.plan import SourceKind
from poller.records import Epoch, MappingId
from poller.refusals import answer, refusals

TAGS_MAX = 50
"""Tags of one mapping, AWS's limit."""
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

FIXED = frozenset({"EventSourceArn", "StartingPosition", "StartingPositionTimestamp", "Tags"})
"""What an update cannot change (spec 10.1); AWS ignores these members of a request."""
POLLERS = "ProvisionedPollerConfig"


def created_by(request: Mapping[str, Any], *, now: Epoch) -> EventSourceMapping:
    """The mapping that a create request asks for; raises Refused in AWS's order."""
    return _accepted(_known(request), now)


def updated_by(
    parameters: Mapping[str, Any], request: Mapping[str, Any], *, now: Epoch
) -> EventSourceMapping:
    """The mapping that `parameters` become by an update request; raises Refused.

    Absent and null members keep what is there, given ones replace it; what is empty then means nothing. That holds for
    ProvisionedPollerConfig too, which a create request must not leave empty.
    """
    given = {name: value for name, value in _known(request).items() if name not in FIXED}
    merged = {**parameters, **given}
    if merged.get(POLLERS) == {}:
        del merged[POLLERS]
    return _accepted(merged, now)


def twin_text(source_arn: str, function: str, twin: MappingId, *, queue: bool) -> str:
    """What AWS says when another mapping connects the same; `function` may be any form of its name."""
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
    """What AWS says when a source must not be read; tools that wait for new permissions know it by its words."""
    if kind is SourceKind.SQS:
        return QUEUE_DENIED
    actions = "DescribeStream, ListShards," if kind is SourceKind.KINESIS else "DescribeStream,"
    return (
        f"Cannot access stream {source_arn}. Please ensure the role can perform the GetRecords, GetShardIterator, "
        f"{actions} and ListStreams Actions on your stream in IAM."
    )


def short_visibility_text(visibility_s: int, timeout_s: float) -> str:
    """What AWS says of a queue whose messages come again before the function is done."""
    return (
        f"Queue visibility timeout: {visibility_s} seconds is less than "
        f"Function timeout: {timeout_s:g} seconds"
    )


def with_tags(tags: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The tags after adding some; raises Refused when they are too many."""
    found = {**tags, **more}
    if len(found) > TAGS_MAX:
        text = f"An event source mapping cannot have more than {TAGS_MAX} tags; these would be {len(found)}."
        raise Refused(Fault.PARAMETER, text)
    return found


def without_tags(tags: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """The tags after removing some; unknown keys are no error."""
    away = set(keys)
    return {name: value for name, value in tags.items() if name not in away}


def _known(request: Mapping[str, Any]) -> dict[str, Any]:
    """The members that a mapping has, without nulls; AWS ignores members that it does not know."""
    names = EventSourceMapping.model_fields
    return {name: value for name, value in request.items() if name in names and value is not None}


def _accepted(parameters: Mapping[str, Any], now: Epoch) -> EventSourceMapping:
    try:
        mapping = EventSourceMapping.model_validate(parameters)
    except ValidationError as error:
        raise Refused(Fault.VALIDATION, _constraint(error)) from None
    refused = answer(refusals(mapping, now=now))
    if refused is not None:
        fault, text = refused
        raise Refused(Fault(fault), text)
    with_tags({}, mapping.Tags or {})
    return mapping


def _constraint(error: ValidationError) -> str:
    """The first thing of a wrong type, in the manner of AWS's texts."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part)[:1].lower() + str(part)[1:] for part in first["loc"])
    value = str(first["input"])[:VALUE_CHARS_MAX]
    return f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: {first['msg']}"
