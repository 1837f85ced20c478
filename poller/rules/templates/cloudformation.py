"""Owns where functions and mappings are in a template of SAM, CloudFormation or CDK.

SAM has mappings among the Events of a function. CloudFormation has them as resources, and so has what CDK synthesises.
"""

from collections.abc import Collection, Iterator
from typing import Any

from poller.rules.templates.found import ELSEWHERE, FoundFunction, FoundInTemplate, FoundMapping
from poller.rules.templates.intrinsics import Resolver, is_function
from poller.rules.templates.resource_names import FUNCTIONS, resource_name
from poller.rules.templates.values import NOTHING, Given, InvalidTemplate, Unresolved, items, joined, table

SAM_FUNCTION = "AWS::Serverless::Function"
MAPPING = "AWS::Lambda::EventSourceMapping"
ALIAS = "AWS::Lambda::Alias"
VERSION = "AWS::Lambda::Version"
SOURCES = {"Kinesis": "Stream", "DynamoDB": "Stream", "SQS": "Queue"}
"""The types of SAM's events that are read here, and the property with the source's ARN."""
NESTED = ("AWS::CloudFormation::Stack", "AWS::Serverless::Application")
LAMBDA_TIMEOUT_S = 3
"""What AWS Lambda gives a function whose template says nothing."""
_ARCHIVES = (".zip", ".jar")
OTHER_SOURCES = frozenset({"MSK", "SelfManagedKafka", "MQ", "DocumentDB"})


def is_cloudformation(template: dict[str, Any]) -> bool:
    """Whether a document is a template with resources."""
    return isinstance(template.get("Resources"), dict)


def find(template: dict[str, Any], given: Given, members: Collection[str]) -> FoundInTemplate:
    """The mappings and functions of a template. `members` are the names that a mapping of the configuration may have."""
    if not is_cloudformation(template):
        raise InvalidTemplate(
            "has no Resources; give a template of SAM, CloudFormation or CDK, or a serverless.yml"
        )
    return Finder(
        Resolver(template, given), members, table(table(template.get("Globals")).get("Function"))
    ).all()


class Finder:
    """Goes through the resources of one template."""

    def __init__(self, values: Resolver, members: Collection[str], usual: dict[str, Any]) -> None:
        self._values = values
        self._members = members
        self._usual = usual
        self._functions: dict[str, FoundFunction] = {}
        self._left_out: list[str] = []
        self._unread: list[str] = []

    @property
    def resources(self) -> dict[str, Any]:
        """The resources of the template, by logical id."""
        return self._values.resources

    def value(self, node: object) -> Any:
        """A value with its functions resolved."""
        return self._values.value(node)

    def all(self) -> FoundInTemplate:
        """Everything that is found."""
        mappings = [each for logical in self._values.resources for each in self._of_resource(logical)]
        return FoundInTemplate(
            mappings=mappings, functions=self._functions, left_out=self._left_out, unread=self._unread
        )

    def _of_resource(self, logical: str) -> Iterator[FoundMapping]:
        resource = table(self._values.resources[logical])
        kind, place = resource.get("Type"), f"Resources.{logical}"
        if logical.startswith("Fn::"):
            self._unread.append(
                f"{place}: {logical.split('::')[1]} is not expanded here; write out the resources that it makes"
            )
            return
        if kind in NESTED:
            self._left_out.append(f"{place}: a stack of its own; give its template to poller init, too")
        if isinstance(kind, Unresolved):
            self._unread.append(f"{place}.Type: {kind.written.strip('<>')} is not read; write the type there")
        if kind not in (SAM_FUNCTION, MAPPING):
            return
        if (where := _unwritten(resource.get("Properties", {}))) is not None:
            self._unread.append(f"{place}.Properties: {where} is not read; write each property there")
            return
        notes: tuple[str, ...] = ()
        if "Condition" in resource:
            holds = self._values.condition(resource["Condition"])
            if holds is False:
                self._left_out.append(f"{place}: its condition {resource['Condition']} does not hold")
                return
            if isinstance(holds, Unresolved):
                notes = (f"it has the condition {resource['Condition']}, which is not resolved: {holds.why}",)
        if kind == MAPPING:
            yield from self._resource_mapping(place, table(resource.get("Properties")), notes)
            return
        events = table(resource.get("Properties")).get("Events", {})
        if not isinstance(events, dict) or any(map(is_function, events)):
            self._unread.append(f"{place}.Events: is no table of events; write each event there")
            return
        for name, event in events.items():
            yield from self._event(logical, f"{place}.Events.{name}", table(event), notes)

    def _event(
        self, logical: str, place: str, event: dict[str, Any], notes: tuple[str, ...]
    ) -> Iterator[FoundMapping]:
        kind = event.get("Type")
        if not isinstance(kind, str):
            self._unread.append(f"{place}: its type is not written out; write an event with Type there")
            return
        if kind in OTHER_SOURCES:
            self._left_out.append(
                f"{place}: a mapping of {kind}; only Kinesis, DynamoDB Streams and SQS are read"
            )
        if kind not in SOURCES:
            return
        given = dict(table(event.get("Properties")))
        members: dict[str, Any] = {"FunctionName": self.function_name({"Ref": logical})}
        alias = self._properties(logical).get("AutoPublishAlias")
        if isinstance(alias, str):
            members["FunctionName"] = joined([members["FunctionName"], ":", alias])
        members["EventSourceArn"] = given.pop(SOURCES[kind], None)
        yield self._mapping(place, {**members, **given}, notes)

    def _resource_mapping(
        self, place: str, given: dict[str, Any], notes: tuple[str, ...]
    ) -> Iterator[FoundMapping]:
        if "EventSourceArn" not in given:
            self._left_out.append(f"{place}: has no EventSourceArn; self-managed Kafka is not read here")
            return
        yield self._mapping(
            place, {**given, "FunctionName": self.function_name(given.get("FunctionName"))}, notes
        )

    def _mapping(self, place: str, given: dict[str, Any], notes: tuple[str, ...]) -> FoundMapping:
        resolved = {name: self._values.value(value) for name, value in given.items()}
        found = {
            name: value for name, value in resolved.items() if value is not NOTHING and value is not None
        }
        destination = table(table(found.get("DestinationConfig")).get("OnFailure"))
        # SAM says the kind of a destination beside its ARN.
        if destination.pop("Type", None) is not None and "Destination" not in destination:
            made = Unresolved("<queue>", "SAM makes the destination; write its ARN")
            destination["Destination"] = made
        return FoundMapping(
            place=place,
            members={name: value for name, value in found.items() if name in self._members},
            unknown=tuple(name for name in found if name not in self._members),
            notes=notes,
        )

    def function_name(self, node: object) -> object:
        """The name of a function that a template refers to, with its alias; the function itself is looked at, too."""
        logical = _referred(node)
        resource = table(self._values.resources.get(logical))
        properties = table(resource.get("Properties"))
        match resource.get("Type"):
            case kind if kind in FUNCTIONS:
                name = resource_name(self._values, logical)
                if isinstance(name, str):
                    self._functions.setdefault(name, self._function(logical, name))
                return name
            case "AWS::Lambda::Alias":
                parts = [_bare(properties, self), ":", self._values.value(properties.get("Name"))]
                return joined(parts)
            case "AWS::Lambda::Version":
                return _bare(properties, self)
            case _:
                return self._values.value(node)

    def _properties(self, logical: str) -> dict[str, Any]:
        resource = table(self._values.resources[logical])
        own = table(resource.get("Properties"))
        return {**self._usual, **own} if resource.get("Type") == SAM_FUNCTION else own

    def _function(self, logical: str, name: str) -> FoundFunction:
        given = self._properties(logical)
        kept = ("Runtime", "Handler", "Timeout", "MemorySize", "ReservedConcurrentExecutions")
        values = {each: self._known(given.get(each)) for each in kept}
        variables = table(table(given.get("Environment")).get("Variables"))
        usual = table(table(self._usual.get("Environment")).get("Variables"))
        return FoundFunction(
            name=name,
            runtime=values["Runtime"],
            handler=values["Handler"],
            code=self._code(logical, given),
            timeout=LAMBDA_TIMEOUT_S if values["Timeout"] is None else values["Timeout"],
            memory=values["MemorySize"],
            concurrency=values["ReservedConcurrentExecutions"],
            variables=tuple(sorted({*map(str, variables), *map(str, usual)})),
            image=given.get("PackageType") == "Image"
            or "ImageUri" in given
            or "ImageUri" in table(given.get("Code")),
            layers=bool(items(given.get("Layers"))),
            left_out=tuple(name for name in ELSEWHERE if name in given),
            unnamed="FunctionName" not in given and logical not in self._values.given.parameters,
        )

    def _known(self, node: object) -> object:
        value = self._values.value(node)
        return None if value is NOTHING else value

    def _code(self, logical: str, given: dict[str, Any]) -> object:
        """The folder of a function's code as the template says it; None if it is in a bucket or an archive, inline or not said."""
        asset = table(table(self._values.resources[logical]).get("Metadata")).get("aws:asset:path")
        found = asset or self._known(given.get("CodeUri", given.get("Code")))
        folder = isinstance(found, str) and "://" not in found and not found.endswith(_ARCHIVES)
        return found if folder else None


def _unwritten(properties: object) -> str | None:
    """Where properties are that the template does not have itself, or None if it has them."""
    match properties:
        case Unresolved():
            return properties.written.strip("<>")
        case dict():
            return next(filter(is_function, properties), None)
        case _:
            return "what is no table"


def _referred(node: object) -> str:
    """The logical id that Ref, GetAtt of an ARN, or Sub of one of these names; empty if there is none."""
    if not isinstance(node, dict) or len(node) != 1:
        return ""
    name, argument = next(iter(node.items()))
    match name, argument:
        case "Ref", str():
            return argument
        case "Fn::GetAtt", [str(logical), str()]:
            return logical
        case "Fn::GetAtt", str():
            return argument.partition(".")[0]
        case "Fn::Sub", str() if (
            argument.startswith("${") and argument.endswith("}") and "}" not in argument[:-1]
        ):
            return argument[2:-1].removesuffix(".Arn")
        case _:
            return ""


def _bare(properties: dict[str, Any], finder: Finder) -> object:
    """The function of an alias or a version. It is a function itself, not another alias."""
    node = properties.get("FunctionName")
    logical = _referred(node)
    kinds = table(finder.resources.get(logical)).get("Type")
    return (
        Unresolved(f"<{logical}>", f"{logical} is no function")
        if kinds in (ALIAS, VERSION)
        else finder.function_name(node)
    )
