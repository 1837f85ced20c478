"""Owns what Ref and GetAtt give for the resources that mappings name: streams, tables, queues, topics, buckets, functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from poller.rules.templates.values import Given, Unresolved, joined, table

FUNCTIONS = ("AWS::Lambda::Function", "AWS::Serverless::Function")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A type of resource: the property with its name, and the end of its ARN before the name."""

    name: str
    service: str
    resource: str = ""


KINDS: Mapping[str, _Kind] = {
    "AWS::Kinesis::Stream": _Kind("Name", "kinesis", "stream/"),
    "AWS::DynamoDB::Table": _Kind("TableName", "dynamodb", "table/"),
    "AWS::DynamoDB::GlobalTable": _Kind("TableName", "dynamodb", "table/"),
    "AWS::SQS::Queue": _Kind("QueueName", "sqs"),
    "AWS::SNS::Topic": _Kind("TopicName", "sns"),
    "AWS::S3::Bucket": _Kind("BucketName", "s3"),
    **dict.fromkeys(FUNCTIONS, _Kind("FunctionName", "lambda", "function:")),
}
_ARNS = frozenset({"Arn", "TopicArn"})


class Values(Protocol):
    """What is asked about other values of the template."""

    given: Given
    resources: dict[str, Any]

    def value(self, node: object) -> Any:
        """A value with its functions resolved."""
        ...


def attribute_of(values: Values, logical: str, name: str) -> object:
    """What GetAtt of a resource gives, or Ref if `name` is empty. What the user gives for it comes first."""
    key = f"{logical}.{name}"
    given = values.given.parameters.get(key)
    if name and given is not None:
        return given
    resource = table(values.resources.get(logical))
    kind = KINDS.get(str(resource.get("Type")))
    if kind is None:
        what = "is not in the template" if not resource else f"is an {resource.get('Type')}"
        shown = key if name else logical
        return Unresolved(f"<{shown}>", f"{logical} {what}; give --parameter {shown}=VALUE")
    own = resource_name(values, logical)
    if name == "StreamArn" and kind.service == "dynamodb":
        label = f"AWS makes the stream's label; give --parameter {key}=ARN (LatestStreamArn of aws dynamodb describe-table)"
        return joined([_arn(values, kind, own), "/stream/", Unresolved("<label>", label)])
    if name in _ARNS or (not name and kind.service == "sns"):
        return _arn(values, kind, own)
    if name in ("", "QueueName", "TopicName") and not (kind.service == "sqs" and not name):
        return own
    return Unresolved(f"<{key}>", f"{key} is not resolved here; give --parameter {key}=VALUE")


def resource_name(values: Values, logical: str) -> object:
    """A resource's own name. A function without one is called by its logical id."""
    resource = table(values.resources.get(logical))
    kind = KINDS[str(resource.get("Type"))]
    given = values.given.parameters.get(logical)
    properties = values.value(resource.get("Properties"))
    found = properties if isinstance(properties, Unresolved) else table(properties).get(kind.name)
    if given is not None or isinstance(found, str | Unresolved):
        return found if given is None else given
    if kind.service == "lambda":
        return logical
    why = f"AWS makes the name of {logical}, which has no {kind.name}; give --parameter {logical}=NAME"
    return Unresolved(f"<{logical}>", why)


def _arn(values: Values, kind: _Kind, own: object) -> object:
    partition = values.value({"Ref": "AWS::Partition"})
    place = ["", ":", ""]
    if kind.service != "s3":
        place = [values.value({"Ref": "AWS::Region"}), ":", values.value({"Ref": "AWS::AccountId"})]
    return joined(["arn:", partition, f":{kind.service}:", *place, f":{kind.resource}", own])
