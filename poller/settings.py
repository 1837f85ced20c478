"""Owns the daemon's own settings: what they are, what they may be, and how they must agree."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from poller.complaints import Objection, refused
from poller.fields import (
    COUNT_MAX,
    SECONDS_MAX,
    Address,
    Count,
    FilePath,
    PlugInName,
    Seconds,
    Url,
    aws_service,
    bare_function_arn,
    function_key,
    listen_address,
    role_arn,
    store_url,
    uuid_text,
)
from poller.mapping import EventSourceMapping, Flag, FunctionIdentity, function_arn
from poller.plan import OnDestinationFailure, Tuning
from poller.records import Epoch
from poller.refusals import refusals
from poller.rules.queue_checks import LambdaConsumers

ENV_PREFIX = "POLLER_"
FILE_CONCURRENCY_MIN = 1
MAPPINGS_MAX = 10_000
FUNCTIONS_MAX = 10_000
TIMEOUT_S = 30.0
BEATS_PER_LEASE = 3
"""Heartbeats that must fit into the lease time, so that one that is lost kills nobody."""


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: mappings are joined, everything else is replaced."""
    merged = dict(below)
    for name, value in above.items():
        beneath = merged.get(name)
        both = isinstance(beneath, Mapping) and isinstance(value, Mapping)
        merged[name] = laid_over(beneath, value) if both and isinstance(beneath, Mapping) else value
    return merged


def _whole_rhythm(value: object) -> object:
    """Lays what was given over the defaults, so that half of a back-off keeps its other half."""
    if not isinstance(value, dict):
        return value
    # A dataclass would take true for 1.
    flags = [name for name, each in value.items() if isinstance(each, bool)]
    if flags:
        raise refused(Objection(str(name), "not a number", "write digits, without unit") for name in flags)
    return laid_over(asdict(Tuning()), value)


def _rhythm(tuning: Tuning) -> Tuning:
    found = list(_off_beat(tuning, ""))
    if not found and tuning.heartbeat_s * BEATS_PER_LEASE > tuning.lease_s:
        most = f"write {tuning.lease_s / BEATS_PER_LEASE:g} or less, or a longer lease_s"
        found.append(Objection("heartbeat_s", "more than a third of lease_s", most))
    if found:
        raise refused(found)
    return tuning


def _off_beat(value: object, prefix: str) -> Iterator[Objection]:
    """Every number of the rhythm is above zero and bounded; ones that count are whole by their type."""
    for field in fields(value) if is_dataclass(value) else ():
        each, name = getattr(value, field.name), f"{prefix}{field.name}"
        most = COUNT_MAX if isinstance(each, int) else SECONDS_MAX
        if is_dataclass(each):
            yield from _off_beat(each, f"{name}.")
        elif isinstance(each, int | float) and not 0 < each <= most:
            yield Objection(name, "out of range", f"write more than 0, at most {most}")


class Section(BaseModel):
    """What all parts have in common: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Api(Section):
    """Who may change things through the HTTP API; reads are open."""

    access_keys_file: FilePath | None = None
    tokens_file: FilePath | None = None
    allow_unauthenticated: Flag = False


class Check(Section):
    """How strict `poller check --live` is."""

    lambda_consumers: LambdaConsumers = LambdaConsumers.REFUSE


class LogLevel(StrEnum):
    """From which weight on lines are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Log(Section):
    """What is logged on stderr, and how."""

    level: Annotated[
        LogLevel, BeforeValidator(lambda text: text.lower() if isinstance(text, str) else text)
    ] = LogLevel.INFO
    format: Literal["json", "console"] = "json"


class FunctionEntry(BaseModel):
    """One function. Names that are not here are settings of its invoker."""

    model_config = ConfigDict(extra="allow", frozen=True)

    invoker: PlugInName | None = None
    timeout_s: Seconds = TIMEOUT_S
    max_concurrency: Count | None = None
    arn: Annotated[str, AfterValidator(bare_function_arn)] | None = None
    role: Annotated[str, AfterValidator(role_arn)] | None = None


class FileMapping(EventSourceMapping):
    """A mapping in the configuration file, checked as AWS does: AWS's names and a few of ours."""

    UUID: Annotated[str, AfterValidator(uuid_text)] | None = None
    on_destination_failure: OnDestinationFailure | None = None
    extend_visibility: Flag | None = None
    one_group_per_batch: Flag | None = None
    group_aware_failures: Flag | None = None
    source: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _as_aws(self) -> Self:
        found = [
            Objection(each.field, each.message, each.remedy)
            for each in refusals(
                self,
                now=Epoch(time.time()),
                concurrency_min=FILE_CONCURRENCY_MIN,
                destination_urls=True,
            )
        ]
        found += _misplaced(self)
        if "arn" in self.source:
            found.append(
                Objection("source.arn", "the source's ARN has its own place", "write it at EventSourceArn")
            )
        if found:
            raise refused(found)
        return self


def _misplaced(mapping: FileMapping) -> list[Objection]:
    """Settings of queues beside a source that has no use for them."""
    arn = mapping.EventSourceArn or ""
    queue = arn.split(":")[2:3] == ["sqs"]
    fifo = queue and arn.endswith(".fifo")
    fits = {"extend_visibility": queue, "one_group_per_batch": fifo, "group_aware_failures": fifo}
    return [
        Objection(name, f"is for {'SQS' if name == 'extend_visibility' else 'FIFO'} queues only", "remove it")
        for name, fitting in fits.items()
        if getattr(mapping, name) is not None and not fitting
    ]


class Settings(BaseSettings):
    """Everything that a user can set. Constructed from keywords alone; `load` brings the places together."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    region: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,31}$")] | None = None
    endpoint_url: Url | None = None
    endpoint_urls: dict[Annotated[str, AfterValidator(aws_service)], Url] = Field(default_factory=dict)
    listen: Annotated[str, AfterValidator(listen_address)] = "127.0.0.1:8080"
    store: Annotated[str, AfterValidator(store_url)] = "sqlite:///var/lib/poller/state.db"
    api: Api = Api()
    default_invoker: PlugInName = "lambda"
    functions: Annotated[
        dict[Annotated[str, AfterValidator(function_key)], FunctionEntry], Field(max_length=FUNCTIONS_MAX)
    ] = Field(default_factory=dict)
    mappings: Annotated[tuple[FileMapping, ...], Field(max_length=MAPPINGS_MAX)] = ()
    on_destination_failure: OnDestinationFailure = OnDestinationFailure.KEEP
    tuning: Annotated[Tuning, BeforeValidator(_whole_rhythm), AfterValidator(_rhythm)] = Tuning()
    log: Log = Log()
    check: Check = Check()
    worker: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")] | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords only: what a test constructs must not depend on the environment it runs in."""
        return (init_settings,)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        found = [*_twins(self), *_open_doors(self)]
        if found:
            raise refused(found)
        return self

    @property
    def identities(self) -> dict[str, FunctionIdentity]:
        """How the configured functions are called."""
        return {
            name: FunctionIdentity(arn=entry.arn, role=entry.role or "")
            for name, entry in self.functions.items()
        }


def _twins(settings: Settings) -> Iterator[Objection]:
    """Two mappings of one source and function (same qualifier), or with one UUID."""
    seen: dict[str, int] = {}
    for index, mapping in enumerate(settings.mappings):
        source, function = mapping.EventSourceArn or "", function_arn(mapping, settings.identities)
        pair, wrong = f"{source} {function}", f"maps {source} to {function}, as mappings[{{}}] does"
        keys = [
            (pair, "EventSourceArn", wrong),
            (mapping.UUID or "", "UUID", "the UUID of mappings[{}], too"),
        ]
        for key, field, text in keys:
            if key and seen.setdefault(key, index) != index:
                remedy = "remove one of the two, or give the function another qualifier"
                yield Objection(f"mappings[{index}].{field}", text.format(seen[key]), remedy)


def _open_doors(settings: Settings) -> Iterator[Objection]:
    if settings.api.allow_unauthenticated and not Address.parse(settings.listen).loopback:
        wrong = f"anybody who reaches {settings.listen} could change mappings"
        remedy = "write listen: 127.0.0.1:8080, or set api.access_keys_file or api.tokens_file instead"
        yield Objection("api.allow_unauthenticated", wrong, remedy)
