"""Owns the daemon's own settings: what they are, what they may be, and how they must agree."""

import time
from collections.abc import Iterator, Mapping, Sequence
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

from poller.config.aws_validation import refusals
from poller.config.field_types import (
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
    host_name,
    listen_address,
    no_port_alone,
    role_arn,
    store_url,
    uuid_text,
)
from poller.config.mapping import EventSourceMapping, Flag, FunctionIdentity, function_arn
from poller.config_errors.error_messages import FieldError, refused
from poller.domain.arns import Arn
from poller.domain.plan import OnDestinationFailure, Tuning
from poller.domain.records import Epoch
from poller.rules.queues.queue_checks import LambdaConsumers

ENV_PREFIX = "POLLER_"
FILE_CONCURRENCY_MIN = 1
MAPPINGS_MAX = 10_000
FUNCTIONS_MAX = 10_000
HOSTS_MAX = 100
CLOSE_THE_DOOR = "write listen: 127.0.0.1:8080, or set api.access_keys_file or api.tokens_file instead"
OTHER = "\0"
"""Stands for another mapping's place in a text."""
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
        raise refused(FieldError(str(name), "not a number", "write digits, without unit") for name in flags)
    return laid_over(asdict(Tuning()), value)


def _rhythm(tuning: Tuning) -> Tuning:
    found = list(_off_beat(tuning, ""))
    if not found and tuning.heartbeat_s * BEATS_PER_LEASE > tuning.lease_s:
        most = f"write {tuning.lease_s / BEATS_PER_LEASE:g} or less, or a longer lease_s"
        found.append(FieldError("heartbeat_s", "more than a third of lease_s", most, reads=("lease_s",)))
    if found:
        raise refused(found)
    return tuning


type Rhythm = Annotated[Tuning, BeforeValidator(_whole_rhythm), AfterValidator(_rhythm)]


def _off_beat(value: object, prefix: str) -> Iterator[FieldError]:
    """Every number of the rhythm is above zero and bounded; ones that count are whole by their type."""
    for field in fields(value) if is_dataclass(value) else ():
        each, name = getattr(value, field.name), f"{prefix}{field.name}"
        most = COUNT_MAX if isinstance(each, int) else SECONDS_MAX
        if is_dataclass(each):
            yield from _off_beat(each, f"{name}.")
        elif isinstance(each, int | float) and not 0 < each <= most:
            yield FieldError(name, "out of range", f"write more than 0, at most {most}")


class Section(BaseModel):
    """What all parts have in common: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Api(Section):
    """Who may change things through the HTTP API; reads are open."""

    access_keys_file: FilePath | None = None
    tokens_file: FilePath | None = None
    allow_unauthenticated: Flag = False
    allowed_hosts: tuple[Annotated[str, AfterValidator(host_name)], ...] = Field(
        default=(), max_length=HOSTS_MAX
    )


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
    timeout_s: Seconds | None = None
    max_concurrency: Count | None = None
    arn: Annotated[str, AfterValidator(bare_function_arn)] | None = None
    role: Annotated[str, AfterValidator(role_arn)] | None = None


class FileMembers(EventSourceMapping):
    """The members of a mapping in the configuration file, each right by itself: AWS's and a few of ours."""

    UUID: Annotated[str, AfterValidator(uuid_text)] | None = None
    on_destination_failure: OnDestinationFailure | None = None
    extend_visibility: Flag | None = None
    one_group_per_batch: Flag | None = None
    group_aware_failures: Flag | None = None
    source: dict[str, Any] = Field(default_factory=dict)


class FileMapping(FileMembers):
    """A mapping in the configuration file, checked as AWS does."""

    @model_validator(mode="after")
    def _as_aws(self) -> Self:
        found = disagreements(self)
        if found:
            raise refused(found)
        return self


def disagreements(mapping: FileMembers) -> list[FieldError]:
    """What AWS would refuse in a mapping, and we; as far as it has the members that this follows from."""
    found = refusals(
        mapping, now=Epoch(time.time()), concurrency_min=FILE_CONCURRENCY_MIN, destination_urls=True
    )
    objections = [FieldError(each.field, each.message, each.remedy) for each in found]
    if hasattr(mapping, "EventSourceArn"):
        objections += _misplaced(mapping)
    if "arn" in getattr(mapping, "source", ()):
        wrong, remedy = "the source's ARN has its own place", "write it at EventSourceArn"
        objections.append(FieldError("source.arn", wrong, remedy))
    return objections


def _misplaced(mapping: FileMembers) -> list[FieldError]:
    """Settings of queues beside a source that has no use for them."""
    arn = Arn.read(mapping.EventSourceArn or "")
    queue = arn is not None and arn.service == "sqs"
    fifo = arn is not None and queue and arn.fifo
    fits = {"extend_visibility": queue, "one_group_per_batch": fifo, "group_aware_failures": fifo}
    return [
        FieldError(
            name, f"is for {'SQS' if name == 'extend_visibility' else 'FIFO'} queues only", "remove it"
        )
        for name, fitting in fits.items()
        if getattr(mapping, name, None) is not None and not fitting
    ]


class Settings(BaseSettings):
    """Everything that a user can set. Constructed from keywords alone; `load` brings the places together."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    region: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,31}$")] | None = None
    endpoint_url: Url | None = None
    endpoint_urls: dict[Annotated[str, AfterValidator(aws_service)], Url] = Field(default_factory=dict)
    listen: Annotated[str, BeforeValidator(no_port_alone), AfterValidator(listen_address)] = "127.0.0.1:8080"
    store: Annotated[str, AfterValidator(store_url)] = "sqlite:///var/lib/poller/state.db"
    api: Api = Api()
    default_invoker: PlugInName = "lambda"
    functions: Annotated[
        dict[Annotated[str, AfterValidator(function_key)], FunctionEntry], Field(max_length=FUNCTIONS_MAX)
    ] = Field(default_factory=dict)
    mappings: Annotated[tuple[FileMapping, ...], Field(max_length=MAPPINGS_MAX)] = ()
    on_destination_failure: OnDestinationFailure = OnDestinationFailure.KEEP
    tuning: Rhythm = Tuning()
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
        found = twins(self.mappings, self.identities)
        if open_door(self.listen, everybody=self.api.allow_unauthenticated):
            wrong = f"anybody who reaches {self.listen} could change mappings"
            found.append(FieldError("api.allow_unauthenticated", wrong, CLOSE_THE_DOOR))
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


def twins(mappings: Sequence[FileMembers], identities: Mapping[str, FunctionIdentity]) -> list[FieldError]:
    """Two mappings of one source and function (same qualifier), or with one UUID; those that lack these are passed over."""
    seen: dict[str, int] = {}
    found = []
    for index, mapping in enumerate(mappings):
        for key, field, wrong in _claims(mapping, identities):
            if seen.setdefault(key, index) != index:
                remedy = "remove one of the two, or give the function another qualifier"
                text = wrong.replace(OTHER, f"mappings[{seen[key]}]")
                found.append(FieldError(f"mappings[{index}].{field}", text, remedy))
    return found


def _claims(
    mapping: FileMembers, identities: Mapping[str, FunctionIdentity]
) -> Iterator[tuple[str, str, str]]:
    """What only one mapping may have: the key, the field, and what is wrong with a second one."""
    if hasattr(mapping, "EventSourceArn") and hasattr(mapping, "FunctionName"):
        try:
            source, function = mapping.EventSourceArn or "", function_arn(mapping, identities)
        except ValueError:
            return
        yield f"{source} {function}", "EventSourceArn", f"maps {source} to {function}, as {OTHER} does"
    if getattr(mapping, "UUID", None):
        yield str(mapping.UUID), "UUID", f"the UUID of {OTHER}, too"


def open_door(listen: str, *, everybody: bool) -> bool:
    """Whether changes without a credential would come from beyond this machine."""
    return everybody and not Address.parse(listen).loopback
