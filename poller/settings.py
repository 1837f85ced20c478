"""Owns the daemon's own settings: where they come from, what they may be, and how they become a plan.

Precedence: command line, environment (`POLLER_*`, nested with `__`), configuration file, defaults.
"""

import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from poller.complaints import Layer, Objection, complaints, known_names, refused
from poller.errors import InvalidConfiguration
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
    store_name,
    store_url,
    uuid_text,
)
from poller.files import read_document
from poller.mapping import EventSourceMapping, Flag, FunctionIdentity, as_written, function_arn, plan
from poller.plan import DaemonPlan, FunctionPlan, MappingPlan, OnDestinationFailure, Tuning
from poller.records import Epoch, MappingId, WorkerId
from poller.refusals import refusals
from poller.rules.policies import QueuePolicy
from poller.rules.queue_checks import LambdaConsumers

ENV_PREFIX = "POLLER_"
COMMAND_LINE_ONLY = {"config", "url"}
"""POLLER_* variables that stand for options of commands, not for settings."""
FILE_CONCURRENCY_MIN = 1
MAPPINGS_MAX = 10_000
FUNCTIONS_MAX = 10_000
TIMEOUT_S = 30.0
BEATS_PER_LEASE = 3
"""Heartbeats that must fit into the lease time, so that one that is lost kills nobody."""


def _whole_rhythm(value: object) -> object:
    """Lays what was given over the defaults, so that half of a back-off keeps its other half."""
    if not isinstance(value, dict):
        return value
    # A dataclass would take true for 1.
    flags = [name for name, each in value.items() if isinstance(each, bool)]
    if flags:
        raise refused(Objection(str(name), "not a number", "write digits, without unit") for name in flags)
    return _over(asdict(Tuning()), value)


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


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the file at `path`, the environment and `overrides` (the command line, nested as the file is).

    Raises InvalidConfiguration with a line for every problem, whichever place it comes from.
    """
    problems: list[str] = []
    document: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    try:
        document = read_document(path) if path else {}
    except InvalidConfiguration as error:
        problems += error.problems
    try:
        environment = EnvSettingsSource(Settings, env_ignore_empty=True)()
    except SettingsError as error:
        problems.append(f"environment: {error}; write JSON, or one variable a setting with __ between names")
    problems += _misspelled(os.environ)
    layers = [
        Layer("command line", overrides or {}),
        Layer("environment " + ENV_PREFIX + "{name}", environment),
        Layer(str(path or "configuration").replace("{", "{{").replace("}", "}}"), document),
    ]
    if problems:
        raise InvalidConfiguration(problems)
    return _validated(layers)


def _validated(layers: Sequence[Layer]) -> Settings:
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _over(merged, layer.values)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise InvalidConfiguration(complaints(error, model=Settings, layers=layers)) from None


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: mappings are joined, everything else is replaced."""
    merged = dict(below)
    for name, value in above.items():
        beneath = merged.get(name)
        both = isinstance(beneath, Mapping) and isinstance(value, Mapping)
        merged[name] = _over(beneath, value) if both and isinstance(beneath, Mapping) else value
    return merged


def _misspelled(variables: Mapping[str, str]) -> list[str]:
    """POLLER_* variables that nearly name a setting.

    Others are not ours: Kubernetes sets POLLER_PORT, POLLER_SERVICE_HOST and more for a service called poller.
    """
    known = list(Settings.model_fields)
    nested = {
        f"{name}_{inner}": f"{name}__{inner}" for name in known for inner in known_names(Settings, (name,))
    }
    problems = []
    for variable in variables:
        upper = variable.upper()
        name = upper.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if not upper.startswith(ENV_PREFIX) or name in known or name in COMMAND_LINE_ONLY:
            continue
        if name in nested:
            meant = f"did you mean {ENV_PREFIX}{nested[name].upper()}?"
            problems.append(f"environment {variable}: unknown setting; {meant}")
        elif near := _near(name, known):
            problems.append(
                f"environment {variable}: unknown setting; did you mean {ENV_PREFIX}{near.upper()}?"
            )
    return problems


def _near(name: str, known: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), None)


def daemon_plan(settings: Settings) -> DaemonPlan:
    """What one daemon runs by these settings; a worker without a name gets one that no other process has."""
    mappings = tuple(_mapping_plan(mapping, settings) for mapping in settings.mappings)
    functions = {name: _function_plan(name, entry, settings) for name, entry in settings.functions.items()}
    for mapping in mappings:
        if mapping.function not in functions:
            functions[mapping.function] = _function_plan(mapping.function, FunctionEntry(), settings)
    return DaemonPlan(
        worker=WorkerId(settings.worker or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"),
        store=store_name(settings.store),
        store_settings={"url": settings.store},
        functions=functions,
        mappings=mappings,
        documents={
            each.mapping: as_written(mapping)
            for each, mapping in zip(mappings, settings.mappings, strict=True)
        },
        default_invoker=settings.default_invoker,
        on_destination_failure=settings.on_destination_failure,
        tuning=settings.tuning,
    )


def _mapping_plan(mapping: FileMapping, settings: Settings) -> MappingPlan:
    return plan(
        mapping,
        settings.identities,
        identity=MappingId(mapping.UUID) if mapping.UUID else None,
        on_destination_failure=mapping.on_destination_failure or settings.on_destination_failure,
        source_settings=mapping.source,
        queue=_queue_policy(mapping),
    )


def _queue_policy(mapping: FileMapping) -> QueuePolicy:
    return QueuePolicy(
        extend_visibility=mapping.extend_visibility is not False,
        one_group_per_batch=bool(mapping.one_group_per_batch),
        group_aware_failures=bool(mapping.group_aware_failures),
    )


def _function_plan(name: str, entry: FunctionEntry, settings: Settings) -> FunctionPlan:
    return FunctionPlan(
        name=name,
        invoker=entry.invoker or settings.default_invoker,
        settings=dict(entry.model_extra or {}),
        timeout_s=entry.timeout_s,
        max_concurrency=entry.max_concurrency,
        arn=entry.arn,
        role=entry.role or "",
    )
