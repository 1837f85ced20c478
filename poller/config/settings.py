"""Owns the daemon's own settings: their names, their types, and the rules between them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
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

from poller.config.aws_validation import violations
from poller.config.field_types import (
    Address,
    Count,
    FilePath,
    IdentityName,
    ObjectPrefixUrl,
    PlugInName,
    Seconds,
    Url,
    aws_service,
    bare_function_arn,
    function_key,
    host_name,
    listen_address,
    no_port_alone,
    number,
    role_arn,
    store_url,
    uuid_text,
)
from poller.config.mapping import EventSourceMapping, Flag, FunctionIdentity, function_arn
from poller.config.sections.asynchronous import DeadLetterArn, EventInvokeConfig, Qualifier
from poller.config.sections.flow_control import FunctionBreaker, FunctionRate
from poller.config.sections.identities import IdentitySetting
from poller.config.sections.numbers import out_of_range
from poller.config.sections.resources import Resources
from poller.config.sections.section import Section
from poller.config.sections.tracing import Tracing
from poller.config.sections.versions import VersionedEntry
from poller.config_errors.error_messages import FieldError, refused
from poller.domain.access import Reads
from poller.domain.arns import Arn
from poller.domain.plan import OnDestinationFailure, Tuning
from poller.domain.policies import RETRY_CAP_S, RETRY_FACTOR, RetryBackoff
from poller.domain.records import Epoch
from poller.rules.queues.queue_checks import LambdaConsumers
from poller.rules.queues.visibility import VISIBILITY_S_MAX

ENV_PREFIX = "POLLER_"
FILE_CONCURRENCY_MIN = 1
MAPPINGS_MAX = 10_000
FUNCTIONS_MAX = 10_000
HOSTS_MAX = 100
IDENTITIES_MAX = 1000
QUALIFIERS_MAX = 1000

RETRY_FACTOR_MAX = 100
"""The largest factor of a retry back-off. With it the third wait is at the limit of 12 hours, from 5 seconds on."""
PROTECT_API = "write listen: 127.0.0.1:8080, or set api.access_keys_file or api.tokens_file instead"
OTHER = "\0"
"""A placeholder for another mapping's place in an error text."""
BEATS_PER_LEASE = 3
"""At least this many heartbeats fit into the lease time, so that one lost heartbeat does not make a worker count as dead."""


def merged_settings(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` updated with `above`: tables are merged, other values are replaced."""
    merged = dict(below)
    for name, value in above.items():
        beneath = merged.get(name)
        both = isinstance(beneath, Mapping) and isinstance(value, Mapping)
        merged[name] = merged_settings(beneath, value) if both and isinstance(beneath, Mapping) else value
    return merged


def _with_defaults(value: object) -> object:
    """Merges the given values into the defaults, so that a back-off with one given member keeps the default of the other."""
    if not isinstance(value, dict):
        return value
    # Pydantic would accept true as the number 1 here.
    flags = [name for name, each in value.items() if isinstance(each, bool)]
    if flags:
        raise refused(FieldError(str(name), "not a number", "write digits, without unit") for name in flags)
    return merged_settings(asdict(Tuning()), value)


def _checked_tuning(tuning: Tuning) -> Tuning:
    found = list(out_of_range(tuning, ""))
    if not found and tuning.heartbeat_s * BEATS_PER_LEASE > tuning.lease_s:
        most = f"write {tuning.lease_s / BEATS_PER_LEASE:g} or less, or a longer lease_s"
        found.append(FieldError("heartbeat_s", "more than a third of lease_s", most, reads=("lease_s",)))
    if found:
        raise refused(found)
    return tuning


type CheckedTuning = Annotated[Tuning, BeforeValidator(_with_defaults), AfterValidator(_checked_tuning)]


class Api(Section):
    """Who may read and who may make changes through the HTTP API."""

    access_keys_file: FilePath | None = None
    tokens_file: FilePath | None = None
    reads: Reads | None = None
    """None: open if `listen` is an address of loopback."""
    show_payloads: Flag = False
    """Whether operators may see what is in the records of a shard."""
    page: Flag = True
    """Whether the page at `/` is served, and the updates that it reads."""
    allow_unauthenticated: Flag = False
    allowed_hosts: tuple[Annotated[str, AfterValidator(host_name)], ...] = Field(
        default=(), max_length=HOSTS_MAX
    )


class Check(Section):
    """How strict `poller check --live` is."""

    lambda_consumers: LambdaConsumers = LambdaConsumers.REFUSE


class LogLevel(StrEnum):
    """The lowest level of lines that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Log(Section):
    """The level and the format of the log on stderr."""

    level: Annotated[
        LogLevel, BeforeValidator(lambda text: text.lower() if isinstance(text, str) else text)
    ] = LogLevel.INFO
    format: Literal["json", "console"] = "json"


class FunctionEntry(VersionedEntry):
    """One function. Other names than these are settings of its invoker."""

    model_config = ConfigDict(extra="allow", frozen=True)

    invoker: PlugInName | None = None
    timeout_s: Seconds | None = None
    max_concurrency: Count | None = None
    arn: Annotated[str, AfterValidator(bare_function_arn)] | None = None
    role: Annotated[str, AfterValidator(role_arn)] | None = None
    rate: FunctionRate | None = None
    breaker: FunctionBreaker | None = None
    event_invoke_config: EventInvokeConfig | None = None
    event_invoke_configs: dict[Qualifier, EventInvokeConfig] = Field(
        default_factory=dict, max_length=QUALIFIERS_MAX
    )
    dead_letter: DeadLetterArn | None = None


type RetrySeconds = Annotated[
    float, BeforeValidator(number), Field(gt=0, le=VISIBILITY_S_MAX, allow_inf_nan=False)
]


class RetryBackoffSetting(Section):
    """How long failed messages of a queue wait. `cap_s` None: 900, or `base_s` if that is more."""

    base_s: RetrySeconds
    factor: Annotated[
        float, BeforeValidator(number), Field(ge=1, le=RETRY_FACTOR_MAX, allow_inf_nan=False)
    ] = RETRY_FACTOR
    cap_s: RetrySeconds | None = None

    @model_validator(mode="after")
    def _cap_above_base(self) -> Self:
        if self.cap_s is not None and self.cap_s < self.base_s:
            wrong, remedy = "less than base_s", f"write {self.base_s:g} or more, or a smaller base_s"
            raise refused([FieldError("cap_s", wrong, remedy, reads=("base_s",))])
        return self

    @property
    def policy(self) -> RetryBackoff:
        """The same for rules."""
        cap_s = max(RETRY_CAP_S, self.base_s) if self.cap_s is None else self.cap_s
        return RetryBackoff(self.base_s, self.factor, cap_s)


class FileMembers(EventSourceMapping):
    """The members of a mapping in the configuration file: AWS's and a few of ours. Each is valid by itself."""

    UUID: Annotated[str, AfterValidator(uuid_text)] | None = None
    on_destination_failure: OnDestinationFailure | None = None
    include_payload: Flag | None = None
    payload_prefix: ObjectPrefixUrl | None = None
    destination_identity: IdentityName | None = None
    shared_reads: Flag | None = None
    extend_visibility: Flag | None = None
    one_group_per_batch: Flag | None = None
    group_aware_failures: Flag | None = None
    retry_backoff: RetryBackoffSetting | None = None
    source: dict[str, Any] = Field(default_factory=dict)


class FileMapping(FileMembers):
    """A mapping in the configuration file, with the rules between members checked as on AWS."""

    @model_validator(mode="after")
    def _as_aws(self) -> Self:
        found = mapping_errors(self)
        if found:
            raise refused(found)
        return self


def mapping_errors(mapping: FileMembers) -> list[FieldError]:
    """What AWS or this daemon would refuse in a mapping. Checks that need a missing member are left out."""
    found = violations(
        mapping, now=Epoch(time.time()), concurrency_min=FILE_CONCURRENCY_MIN, destination_urls=True
    )
    errors = [FieldError(each.field, each.message, each.remedy) for each in found]
    if hasattr(mapping, "EventSourceArn"):
        errors += [*_misplaced(mapping), *_payload_errors(mapping)]
    if "arn" in getattr(mapping, "source", ()):
        wrong, remedy = "the source's ARN has its own place", "write it at EventSourceArn"
        errors.append(FieldError("source.arn", wrong, remedy))
    return errors


def _misplaced(mapping: FileMembers) -> list[FieldError]:
    """Errors for settings of another kind of source."""
    arn = Arn.read(mapping.EventSourceArn or "")
    queue, fifo = arn is not None and arn.service == "sqs", arn is not None and arn.fifo
    fits = {
        "extend_visibility": ("SQS queues", queue),
        "one_group_per_batch": ("FIFO queues", fifo),
        "group_aware_failures": ("FIFO queues", fifo),
        "retry_backoff": ("SQS queues", queue),
        "shared_reads": ("streams", not queue),
    }
    return [
        FieldError(name, f"is for {kind} only", "remove it")
        for name, (kind, fitting) in fits.items()
        if getattr(mapping, name, None) is not None and not fitting
    ]


def _payload_errors(mapping: FileMembers) -> Iterator[FieldError]:
    """Errors for settings about the events in notices that have no effect."""
    include, prefix = getattr(mapping, "include_payload", None), getattr(mapping, "payload_prefix", None)
    arn = Arn.read(mapping.EventSourceArn or "")
    if arn is not None and arn.service == "sqs":
        wrong = "is for streams only: a queue's mapping has no on-failure destination"
        for name in ("include_payload", "payload_prefix", "destination_identity"):
            if getattr(mapping, name, None) is not None:
                yield FieldError(
                    name, wrong, "remove it: the queue's dead-letter queue gets the messages whole"
                )
        return
    if prefix is not None and hasattr(mapping, "include_payload") and not include:
        wrong, remedy = "has no effect by itself", "add include_payload: true, or remove it"
        yield FieldError("payload_prefix", wrong, remedy)
    if include and hasattr(mapping, "DestinationConfig") and mapping.destination is None:
        wrong = "there is no on-failure destination that could get the event"
        remedy = "add DestinationConfig: {OnFailure: {Destination: ARN}}, or remove it"
        yield FieldError("include_payload", wrong, remedy, reads=("DestinationConfig",))
    if (
        getattr(mapping, "destination_identity", None)
        and hasattr(mapping, "DestinationConfig")
        and not mapping.destination
    ):
        wrong, remedy = "there is no on-failure destination", "add DestinationConfig, or remove it"
        yield FieldError("destination_identity", wrong, remedy, reads=("DestinationConfig",))


class AwsSettings(BaseSettings):
    """Where AWS is, and as whom it is called."""

    region: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,31}$")] | None = None
    endpoint_url: Url | None = None
    endpoint_urls: dict[Annotated[str, AfterValidator(aws_service)], Url] = Field(default_factory=dict)
    identities: Annotated[dict[IdentityName, IdentitySetting], Field(max_length=IDENTITIES_MAX)] = {}


class Settings(AwsSettings):
    """Everything that a user can set. It is constructed from keywords only; `load` merges file, environment and command line."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    listen: Annotated[str, BeforeValidator(no_port_alone), AfterValidator(listen_address)] = "127.0.0.1:8080"
    store: Annotated[str, AfterValidator(store_url)] = "sqlite:///var/lib/poller/state.db"
    api: Api = Api()
    default_invoker: PlugInName = "lambda"
    functions: Annotated[
        dict[Annotated[str, AfterValidator(function_key)], FunctionEntry], Field(max_length=FUNCTIONS_MAX)
    ] = Field(default_factory=dict)
    mappings: Annotated[tuple[FileMapping, ...], Field(max_length=MAPPINGS_MAX)] = ()
    on_destination_failure: OnDestinationFailure = OnDestinationFailure.KEEP
    tuning: CheckedTuning = Tuning()
    log: Log = Log()
    tracing: Tracing = Tracing()
    resources: Resources = Resources()
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
        """Uses keywords only, so that settings do not depend on the environment of the process."""
        return (init_settings,)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        found = duplicate_mappings(self.mappings, self.function_identities)
        if open_to_everybody(self.listen, everybody=self.api.allow_unauthenticated):
            wrong = f"anybody who reaches {self.listen} could change mappings"
            found.append(FieldError("api.allow_unauthenticated", wrong, PROTECT_API))
        if found:
            raise refused(found)
        return self

    @property
    def function_identities(self) -> dict[str, FunctionIdentity]:
        """The ARNs and roles of the configured functions, by name."""
        return {
            name: FunctionIdentity(arn=entry.arn, role=entry.role or "")
            for name, entry in self.functions.items()
        }


def duplicate_mappings(
    mappings: Sequence[FileMembers], identities: Mapping[str, FunctionIdentity]
) -> list[FieldError]:
    """Errors for two mappings of one source and function (same qualifier), or with one UUID. Mappings that lack these are skipped."""
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
    """The values of a mapping that must be unique: a key, the field, and the error text for a second mapping with this key."""
    if hasattr(mapping, "EventSourceArn") and hasattr(mapping, "FunctionName"):
        try:
            source, function = mapping.EventSourceArn or "", function_arn(mapping, identities)
        except ValueError:
            return
        yield f"{source} {function}", "EventSourceArn", f"maps {source} to {function}, as {OTHER} does"
    if getattr(mapping, "UUID", None):
        yield str(mapping.UUID), "UUID", f"the UUID of {OTHER}, too"


def open_to_everybody(listen: str, *, everybody: bool) -> bool:
    """Whether other machines could make changes without a credential."""
    return everybody and not Address.parse(listen).loopback
