"""Owns hints for setting names that come from elsewhere: SAM, CloudFormation, Lambda's answers, other event sources."""

import re
from collections.abc import Mapping

INTRINSIC = re.compile(r"Fn::\w+|Ref|Condition")
"""CloudFormation's functions in their long form."""
_BROKER = "message brokers (Amazon MQ)"
_KAFKA = "Kafka"
_DOCUMENTS = "DocumentDB"
_OTHER_SOURCES: Mapping[str, str] = {
    "SelfManagedEventSource": _KAFKA,
    "Topics": _KAFKA,
    "AmazonManagedKafkaEventSourceConfig": _KAFKA,
    "SelfManagedKafkaEventSourceConfig": _KAFKA,
    "KafkaBootstrapServers": _KAFKA,
    "ConsumerGroupId": _KAFKA,
    "SchemaRegistryConfig": _KAFKA,
    "SourceAccessConfigurations": f"{_KAFKA} and {_BROKER}",
    "Queues": _BROKER,
    "Broker": _BROKER,
    "DynamicPolicyName": _BROKER,
    "SecretsManagerKmsKeyId": f"{_KAFKA} and {_BROKER}",
    "DocumentDBEventSourceConfig": _DOCUMENTS,
    "Cluster": _DOCUMENTS,
    "DatabaseName": _DOCUMENTS,
    "CollectionName": _DOCUMENTS,
    "FullDocument": _DOCUMENTS,
}
"""Members of mappings for unsupported event sources, with the names of these sources."""
_RESOURCE = "this is the whole CloudFormation resource; write only what stands below its Properties"
_ANSWER = "remove it; it is part of Lambda's answers, and no setting"
_BELOW_SOURCE = "write it below the mapping's `source:`"
_MAPPING: Mapping[str, str] = {
    "Type": _RESOURCE,
    "Properties": _RESOURCE,
    "DependsOn": _RESOURCE,
    "Condition": _RESOURCE,
    "DeletionPolicy": _RESOURCE,
    "UpdateReplacePolicy": _RESOURCE,
    "Metadata": _RESOURCE,
    "Stream": "write EventSourceArn; Stream is SAM's name for it",
    "Queue": "write EventSourceArn; Queue is SAM's name for it",
    "LoggingConfig": "remove it; it is for Kafka only",
    "FunctionArn": "write FunctionName, which may be an ARN; FunctionArn is a member of Lambda's answers",
    "EventSourceMappingArn": _ANSWER,
    "State": _ANSWER,
    "StateTransitionReason": _ANSWER,
    "LastModified": _ANSWER,
    "LastProcessingResult": _ANSWER,
    "FilterCriteriaError": _ANSWER,
    **dict.fromkeys(("fan_out", "deaggregate", "identity"), _BELOW_SOURCE),
}
_TEMPLATE = "this is a CloudFormation template; write each mapping's Properties as an item below `mappings:`"
_ONE_RESOURCE = (
    "this is a CloudFormation resource; write what stands below its Properties as an item below `mappings:`"
)
_TOP: Mapping[str, str] = {
    **dict.fromkeys(
        ("AWSTemplateFormatVersion", "Transform", "Resources", "Globals", "Events", "Outputs"), _TEMPLATE
    ),
    **dict.fromkeys(("Type", "Properties"), _ONE_RESOURCE),
}
_NAMED_RESOURCE = (
    "this is a CloudFormation resource with its name; write only what stands below its Properties"
)
_FUNCTION: Mapping[str, str] = dict.fromkeys(
    ("Type", "Properties"),
    "this is a CloudFormation resource; write invoker: and that invoker's settings (docs/use/functions.md)",
)
_DESTINATION: Mapping[str, str] = {
    "Type": "remove it; Type is SAM's, and the ARN at Destination says of which kind the destination is",
    "QueueArn": "write Destination with the queue's ARN",
    "TopicArn": "write Destination with the topic's ARN",
}
_MAPPING_DEPTH = 3
"""The length of a path to a member of a mapping: `mappings`, an index, the name. Those to a setting of a function are as long."""


def hint(path: tuple[str | int, ...], value: object) -> str | None:
    """The remedy for a setting that is unknown at `path`; None if there is no hint for its name."""
    name, parent = str(path[-1]), path[-2] if len(path) > 1 else None
    if len(path) == 1:
        return _ONE_RESOURCE if _is_resource(value) else _TOP.get(name)
    if path[0] == "resources" and name[:1].isupper():
        # A template's Resources: names of sections are read in any case, and its logical names begin with a capital.
        return _TEMPLATE
    if path[0] == "functions" and len(path) == _MAPPING_DEPTH:
        return _FUNCTION.get(name)
    if path[0] != "mappings":
        return None
    if len(path) > _MAPPING_DEPTH and INTRINSIC.fullmatch(name):
        return f"CloudFormation's {name} is not resolved here; write the value itself"
    if parent in {"OnFailure", "OnSuccess"}:
        return _DESTINATION.get(name)
    if parent == "source" and name == "shared_reads":
        return "write it beside EventSourceArn, not below `source:`"
    if len(path) != _MAPPING_DEPTH:
        return None
    if name in _OTHER_SOURCES:
        return _of_other_sources(_OTHER_SOURCES[name], value)
    return _NAMED_RESOURCE if _is_resource(value) else _MAPPING.get(name)


def _is_resource(value: object) -> bool:
    return isinstance(value, Mapping) and {"Type", "Properties"} <= value.keys()


def _of_other_sources(sources: str, value: object) -> str:
    """The remedy for a member of unsupported sources. Tools often write such members with an empty value for every mapping."""
    if value is None or value in ([], {}, ""):
        return f"remove this line, which says nothing here; the setting is for {sources}"
    number = "are" if sources.endswith(")") else "is"
    return f"remove the mapping; {sources} {number} not supported"
