"""Owns the table of the members of AWS's event source mappings. All code that handles members uses this table.

Validation takes ranges, lengths and choices from here. A mapping takes its defaults, requests take their JSON types, the mapping
document takes its members and their order, and OpenAPI takes all of these. Rules between members are in
`poller.config.aws_validation`. `poller.config.mapping` turns members into the engine's plan.

The lines are in the order in which AWS reports violations. A member's place in the mapping document is a number. Places grow by ten,
so that a new member can be put between two others.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Flag as FlagEnum
from enum import StrEnum, auto
from typing import Any

from poller.domain.arns import FUNCTION_NAME_CHARS_MAX
from poller.domain.wording.numbers_of import number_of

CONCURRENCY_MIN = 2
"""AWS's smallest MaximumConcurrency. The configuration file allows 1, which is strictly serial."""
PROVISIONED_MIN = 2
"""AWS's API model says 1, but AWS refuses 1 for queues."""
PROVISIONED_MAX = 200
PATTERN_CHARS_MAX = 4096
ARN_CHARS_MAX = 10_000
DESTINATION_CHARS_MAX = 350
TAG_KEY_CHARS_MAX = 128
TAG_VALUE_CHARS_MAX = 256
ENTRIES_MAX = 1_000
"""Items of a list and entries of a map that are looked at. AWS takes a few of each, and 50 tags. A longer one is refused for its length."""
MOMENT_S_MAX = 253_402_300_799
"""The end of the year 9999."""
POSITIONS = ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")
METRICS = ("EventCount", "ErrorCount", "KafkaMetrics")
UNLIMITED = -1
"""AWS's value for no limit of retries or age."""


class JsonType(StrEnum):
    """The type of a member in JSON."""

    TEXT = "text"
    WHOLE = "whole"
    NUMBER = "number"
    FLAG = "flag"
    MOMENT = "moment"
    LIST = "list"
    MAP = "map"
    OBJECT = "object"


class SourceGroup(FlagEnum):
    """Which sources take a member. NONE marks members for sources that are not supported here."""

    NONE = 0
    STREAMS = auto()
    QUEUES = auto()
    ALL = STREAMS | QUEUES


class RequestKind(FlagEnum):
    """Which requests may have a member."""

    NEITHER = 0
    CREATE = auto()
    UPDATE = auto()
    BOTH = CREATE | UPDATE


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its path (`[]` stands for an item of a list, `{}` and `{key}` for a value and a key of a map) and its JSON type.

    `span` bounds a number. `length` bounds the characters of a text or the items of a list. `defaults` has the value of an absent member,
    by kind of source; for a nested member it applies only if the outer member is given. `place` is the member's place in the mapping
    document, None if it is not shown there. A member with `always` is never null there.
    """

    path: str
    type: JsonType
    sources: SourceGroup = SourceGroup.ALL
    requests: RequestKind = RequestKind.BOTH
    span: tuple[int, int] | None = None
    length: tuple[int, int] | None = None
    choices: tuple[str, ...] = ()
    defaults: Mapping[SourceGroup, Any] = field(default_factory=dict)
    place: int | None = None
    always: bool = False

    @property
    def top(self) -> bool:
        """Whether the member is not nested in another one."""
        return _is_name(self.path)

    @property
    def field(self) -> str:
        """The path in AWS's error texts: for an item of a list or map, the path of the list or map."""
        return self.path.partition("[")[0].partition("{")[0]


TEXT, WHOLE, FLAG, MOMENT = JsonType.TEXT, JsonType.WHOLE, JsonType.FLAG, JsonType.MOMENT
LIST, MAP, OBJECT = JsonType.LIST, JsonType.MAP, JsonType.OBJECT
_ALL, _STREAMS, _QUEUES, _NONE = SourceGroup.ALL, SourceGroup.STREAMS, SourceGroup.QUEUES, SourceGroup.NONE
_CREATE, _ANSWER = RequestKind.CREATE, RequestKind.NEITHER
# fmt: off
TABLE: tuple[Member, ...] = (
    Member("FunctionName", TEXT, length=(1, FUNCTION_NAME_CHARS_MAX)),
    Member("EventSourceArn", TEXT, requests=_CREATE, length=(0, ARN_CHARS_MAX), place=210, always=True),
    Member("Enabled", FLAG, defaults={_ALL: True}),
    Member("BatchSize", WHOLE, span=(1, 10_000), defaults={_STREAMS: 100, _QUEUES: 10}, place=150, always=True),
    Member("MaximumBatchingWindowInSeconds", WHOLE, span=(0, 300), defaults={_ALL: 0}, place=140, always=True),
    Member("ParallelizationFactor", WHOLE, _STREAMS, span=(1, 10), defaults={_STREAMS: 1}, place=30),
    Member("StartingPosition", TEXT, _STREAMS, _CREATE, choices=POSITIONS, place=10),
    Member("StartingPositionTimestamp", MOMENT, _STREAMS, _CREATE, span=(0, MOMENT_S_MAX), place=300),
    Member("MaximumRecordAgeInSeconds", WHOLE, _STREAMS, span=(-1, 604_800), defaults={_STREAMS: UNLIMITED}, place=290),
    Member("MaximumRetryAttempts", WHOLE, _STREAMS, span=(-1, 10_000), defaults={_STREAMS: UNLIMITED}, place=180),
    Member("BisectBatchOnFunctionError", FLAG, _STREAMS, defaults={_STREAMS: False}, place=250),
    Member("TumblingWindowInSeconds", WHOLE, _STREAMS, span=(0, 900), defaults={_STREAMS: 0}, place=240),
    Member("KMSKeyArn", TEXT, length=(0, ARN_CHARS_MAX), place=170),
    Member("DestinationConfig", OBJECT, _STREAMS, defaults={_STREAMS: {"OnFailure": {}}}, place=100),
    Member("DestinationConfig.OnSuccess", OBJECT, _NONE),
    Member("DestinationConfig.OnSuccess.Destination", TEXT, _NONE),
    Member("DestinationConfig.OnFailure", OBJECT, _STREAMS),
    Member("DestinationConfig.OnFailure.Destination", TEXT, _STREAMS, length=(0, DESTINATION_CHARS_MAX)),
    Member("FunctionResponseTypes", LIST, length=(0, 1), defaults={_ALL: []}, place=330, always=True),
    Member("FunctionResponseTypes[]", TEXT, choices=("ReportBatchItemFailures",)),
    Member("ScalingConfig", OBJECT, _QUEUES, place=190),
    Member("ScalingConfig.MaximumConcurrency", WHOLE, _QUEUES, span=(CONCURRENCY_MIN, 1_000)),
    Member("ProvisionedPollerConfig", OBJECT, _QUEUES, place=60),
    Member("ProvisionedPollerConfig.MinimumPollers", WHOLE, _QUEUES, span=(PROVISIONED_MIN, 200), defaults={_QUEUES: PROVISIONED_MIN}),
    Member("ProvisionedPollerConfig.MaximumPollers", WHOLE, _QUEUES, span=(PROVISIONED_MIN, 10_000), defaults={_QUEUES: PROVISIONED_MAX}),
    Member("ProvisionedPollerConfig.PollerGroupName", TEXT, _NONE),
    Member("MetricsConfig", OBJECT, place=70),
    Member("MetricsConfig.Metrics", LIST, length=(0, 3)),
    Member("MetricsConfig.Metrics[]", TEXT, choices=METRICS),
    Member("FilterCriteria", OBJECT, place=40),
    Member("FilterCriteria.Filters", LIST),
    Member("FilterCriteria.Filters[].Pattern", TEXT, length=(0, PATTERN_CHARS_MAX)),
    Member("Tags", MAP, requests=_CREATE),
    Member("Tags{key}", TEXT, requests=_CREATE, length=(1, TAG_KEY_CHARS_MAX)),
    Member("Tags{}", TEXT, requests=_CREATE, length=(0, TAG_VALUE_CHARS_MAX)),
    # Members for sources that are not supported here.
    Member("SelfManagedEventSource", OBJECT, _NONE, place=20),
    Member("Topics", LIST, _NONE, place=200),
    Member("Queues", LIST, _NONE, place=310),
    Member("SourceAccessConfigurations", LIST, _NONE, place=120),
    Member("AmazonManagedKafkaEventSourceConfig", OBJECT, _NONE, place=110),
    Member("SelfManagedKafkaEventSourceConfig", OBJECT, _NONE, place=220),
    Member("DocumentDBEventSourceConfig", OBJECT, _NONE, place=230),
    Member("LoggingConfig", OBJECT, _NONE, place=280),
    # Members of answers only.
    Member("FilterCriteriaError", OBJECT, _NONE, _ANSWER, place=50),
    Member("LastModified", MOMENT, requests=_ANSWER, place=80, always=True),
    Member("LastProcessingResult", TEXT, _STREAMS, _ANSWER, place=90),
    Member("UUID", TEXT, requests=_ANSWER, place=130, always=True),
    Member("FunctionArn", TEXT, requests=_ANSWER, place=160, always=True),
    Member("EventSourceMappingArn", TEXT, requests=_ANSWER, place=260, always=True),
    Member("State", TEXT, requests=_ANSWER, place=270, always=True),
    Member("StateTransitionReason", TEXT, requests=_ANSWER, place=320, always=True),
)
# fmt: on


def few_entries(value: object) -> object:
    """Refuses a list or a map with more than ENTRIES_MAX entries, before anything looks at these. Raises ValueError."""
    if isinstance(value, list | tuple | dict) and len(value) > ENTRIES_MAX:
        raise ValueError(f"has {number_of(len(value), 'entry', 'entries')}; write {ENTRIES_MAX} at most")
    return value


def requested(which: RequestKind, table: Iterable[Member] = TABLE) -> Iterator[Member]:
    """The members that such a request may have, nested ones included. Members for unsupported sources are left out."""
    foreign = {each.path for each in table if each.top and each.sources is SourceGroup.NONE}
    return (each for each in table if which & each.requests and each.path not in foreign)


def refused(table: Iterable[Member] = TABLE) -> tuple[str, ...]:
    """Names of the members for sources that are not supported here."""
    return tuple(
        each.path for each in table if each.top and each.requests and each.sources is SourceGroup.NONE
    )


def document_order(table: Iterable[Member] = TABLE) -> tuple[str, ...]:
    """Names of the members of the mapping document, in AWS's order."""
    placed = {each.path: each.place for each in table if each.place is not None}
    return tuple(sorted(placed, key=placed.__getitem__))


def inside(path: str, table: Iterable[Member] = TABLE) -> dict[str, Member]:
    """The members nested in the one at `path`, by name. `path[]` gives those of a list's items, the empty path those of the mapping."""
    prefix = f"{path}." if path else ""
    names = ((each.path.removeprefix(prefix), each) for each in table if each.path.startswith(prefix))
    return {name: each for name, each in names if _is_name(name)}


def with_defaults(
    given: Mapping[str, Any], group: SourceGroup, table: Iterable[Member] = TABLE, *, path: str = ""
) -> dict[str, Any]:
    """The given members, with the defaults of such a source for absent ones. Nested defaults are added only to members that are not empty."""
    table = tuple(table)
    found = {**_defaults(inside(path, table), group), **given}
    for name, each in inside(path, table).items():
        if each.type is OBJECT and given.get(name):
            found[name] = with_defaults(given[name], group, table, path=each.path)
    return found


def default(path: str, group: SourceGroup) -> Any:
    """The value of this member if it is not given."""
    found = next(each for each in TABLE if each.path == path)
    return next(value for groups, value in found.defaults.items() if group in groups)


def _defaults(members: Mapping[str, Member], group: SourceGroup) -> dict[str, Any]:
    return {
        name: value
        for name, each in members.items()
        for groups, value in each.defaults.items()
        if group in groups
    }


def _is_name(path: str) -> bool:
    return path.isalnum()
