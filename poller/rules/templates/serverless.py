"""Owns where functions and mappings are in a serverless.yml, and what Serverless Framework calls the members of a mapping.

Its resources are a template of CloudFormation, in which the framework's own functions can be referred to.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from poller.rules.templates.cloudformation import Finder
from poller.rules.templates.found import FoundInTemplate, FoundMapping
from poller.rules.templates.intrinsics import Resolver
from poller.rules.templates.values import Given, Unresolved, items, joined, table, unresolved_in
from poller.rules.templates.variables import Variables

_SHARED = {
    "arn": "EventSourceArn",
    "enabled": "Enabled",
    "batchSize": "BatchSize",
    "filterPatterns": "FilterCriteria",
    "functionResponseType": "FunctionResponseTypes",
}
STREAM = {
    **_SHARED,
    "batchWindow": "MaximumBatchingWindowInSeconds",
    "startingPosition": "StartingPosition",
    "startingPositionTimestamp": "StartingPositionTimestamp",
    "parallelizationFactor": "ParallelizationFactor",
    "maximumRetryAttempts": "MaximumRetryAttempts",
    "maximumRecordAgeInSeconds": "MaximumRecordAgeInSeconds",
    "bisectBatchOnFunctionError": "BisectBatchOnFunctionError",
    "tumblingWindowInSeconds": "TumblingWindowInSeconds",
    "destinations": "DestinationConfig",
}
QUEUE = {
    **_SHARED,
    "maximumBatchingWindow": "MaximumBatchingWindowInSeconds",
    "maximumConcurrency": "ScalingConfig",
}
_STREAM_USUAL = {"BatchSize": 10, "StartingPosition": "TRIM_HORIZON"}
"""What the framework writes for a stream where nothing is said. AWS's own batch size is 100."""
OTHER_SOURCES = frozenset({"kafka", "msk", "activemq", "rabbitmq"})
PACKAGED = ".serverless/cloudformation-template-update-stack.json"
"""What `serverless package` writes: a template of CloudFormation with everything resolved."""
UNREAD_MEMBERS = {
    "consumer": "consumer (enhanced fan-out; the stream is polled, which loses nothing: write source: {fan_out: true}, or a consumer's ARN)"
}
"""Members that are left out, with what that means."""
_TYPE = "type"


def is_serverless(template: dict[str, Any]) -> bool:
    """Whether a document is a serverless.yml: a service with a provider."""
    return "service" in template and isinstance(template.get("provider"), dict | str)


def find_serverless(service: dict[str, Any], given: Given, members: Collection[str]) -> FoundInTemplate:
    """The mappings and functions of a serverless.yml. `members` are the names that a mapping of the configuration may have."""
    variables = Variables(service, given)
    region = variables.region
    stage = variables.stage
    here = replace(given, region=region if isinstance(region, str) else "")
    provider = table(variables.value(service.get("provider")))
    name = variables.value(service.get("service"))
    prefix = joined([table(name).get("name", name), "-", stage, "-"])
    parts = {key: variables.value(service.get(key)) for key in ("functions", "resources")}
    functions, resources = _functions(parts["functions"]), _resources(parts["resources"])
    for key, each in functions.items():
        own = each.get("name") or joined([prefix, key])
        resources.setdefault(
            _logical(key), {"Type": "AWS::Lambda::Function", "Properties": _properties(each, own, provider)}
        )
    template = {**table(parts["resources"]), "Resources": resources}
    finder = Finder(Resolver(template, here), members, {})
    found = finder.all()
    left_out = list(found.left_out)
    mappings = list(found.mappings)
    for key, each in functions.items():
        for index, event in enumerate(items(each.get("events"))):
            place = f"functions.{key}.events[{index}]"
            mappings += _mapping(place, table(event), key, finder, members, left_out)
    return replace(
        found, mappings=mappings, left_out=left_out, unread=[*found.unread, *_unread(parts)], region=region
    )


def _unread(parts: dict[str, Any]) -> Iterator[str]:
    """A line for each part of the file that is in another one, and may hold functions or mappings."""
    for place, value in _holders(parts):
        if isinstance(value, Unresolved):
            what = value.written.strip("<>")
            yield f"{place}: {what} is not read; write what is in it into this file, or give what `serverless package` writes ({PACKAGED})"


def _holders(parts: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Every part that holds functions, events or resources, with its place."""
    for part, value in [("functions", parts["functions"]), *_each("functions", parts["functions"])]:
        yield part, value
        for key, function in table(value).items():
            events = table(function).get("events")
            yield f"functions.{key}", function
            yield f"functions.{key}.events", events
            yield from _each(f"functions.{key}.events", events)
    for part, value in [("resources", parts["resources"]), *_each("resources", parts["resources"])]:
        yield part, value
        found = table(value).get("Resources")
        yield f"{part}.Resources", found
        yield from ((f"{part}.Resources.{key}", resource) for key, resource in table(found).items())


def _each(place: str, value: object) -> list[tuple[str, object]]:
    return [(f"{place}[{index}]", each) for index, each in enumerate(items(value))]


def _functions(given: object) -> dict[str, dict[str, Any]]:
    """The functions by key. They may be in a list of tables, too."""
    found = [given, *items(given)]
    return {key: each for part in found for key, each in table(part).items() if isinstance(each, dict)}


def _resources(given: object) -> dict[str, Any]:
    """The resources of CloudFormation, which may be in a list of templates, too."""
    found = [given, *items(given)]
    return {name: each for part in found for name, each in table(table(part).get("Resources")).items()}


def _logical(key: str) -> str:
    """The logical id that the framework gives to a function."""
    name = key.replace("-", "Dash").replace("_", "Underscore")
    return f"{name[:1].upper()}{name[1:]}LambdaFunction"


def _properties(function: dict[str, Any], name: object, provider: dict[str, Any]) -> dict[str, Any]:
    variables = {**table(provider.get("environment")), **table(function.get("environment"))}
    found = {
        "FunctionName": name,
        "Runtime": function.get("runtime", provider.get("runtime")),
        "Handler": function.get("handler"),
        "Timeout": function.get("timeout", provider.get("timeout", 6)),
        "MemorySize": function.get("memorySize", provider.get("memorySize")),
        "ReservedConcurrentExecutions": function.get("reservedConcurrency"),
        "Environment": {"Variables": dict.fromkeys(map(str, variables), "")},
        "Layers": function.get("layers"),
        "Code": ".",
    }
    if "image" in function:
        found["PackageType"] = "Image"
    return {key: value for key, value in found.items() if value is not None}


def _mapping(
    place: str, event: dict[str, Any], key: str, finder: Finder, members: Collection[str], left_out: list[str]
) -> Iterator[FoundMapping]:
    for kind in OTHER_SOURCES & event.keys():
        left_out.append(f"{place}: a mapping of {kind}; only Kinesis, DynamoDB Streams and SQS are read")
    for kind, names in (("stream", STREAM), ("sqs", QUEUE)):
        if kind not in event:
            continue
        given = (
            event[kind] if isinstance(event[kind], dict) and "arn" in event[kind] else {"arn": event[kind]}
        )
        renamed = {names[name]: _value(name, value) for name, value in given.items() if name in names}
        usual = _STREAM_USUAL if kind == "stream" else {}
        function = finder.function_name({"Ref": _logical(key)})
        resolved = {name: finder.value(value) for name, value in {**usual, **renamed}.items()}
        unknown = tuple(
            UNREAD_MEMBERS.get(name, name) for name in given if name not in names and name != _TYPE
        )
        yield FoundMapping(
            place=place,
            members={
                "FunctionName": function,
                **{name: value for name, value in resolved.items() if name in members},
            },
            unknown=unknown,
        )


def _value(name: str, value: Any) -> Any:
    """A value in the form that AWS's member has."""
    match name:
        case _ if isinstance(value, Unresolved):
            return value
        case "filterPatterns":
            return {"Filters": [{"Pattern": _pattern(each)} for each in items(value)]}
        case "functionResponseType":
            return [value]
        case "maximumConcurrency":
            return {"MaximumConcurrency": value}
        case "destinations":
            failure = table(value).get("onFailure")
            if isinstance(failure, Unresolved):
                return failure
            arn = failure.get("arn") if isinstance(failure, dict) and "arn" in failure else failure
            return {"OnFailure": {"Destination": arn}} if arn is not None else {}
        case _:
            return value


def _pattern(value: object) -> object:
    missing = next(unresolved_in(value), None)
    if isinstance(value, str | Unresolved) or missing is not None:
        return missing or value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
