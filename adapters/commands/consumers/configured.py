"""Owns which streams a configuration names, and which of its mappings want a consumer of their own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapters.aws.clients import checked_arn
from poller.config.plugin_specs import source_of
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import MappingId
from poller.domain.streams.consumer_names import consumer_name
from poller.plugins import Registry, validated


@dataclass(frozen=True, slots=True)
class NamedStream:
    """A stream, and as whom it is asked (None: as the process)."""

    arn: str
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class ConsumerUse:
    """A mapping of a Kinesis stream, and the name that its own consumer has. `wanted`: it has `fan_out: true`."""

    mapping: MappingId
    stream: NamedStream
    wanted: bool

    @property
    def name(self) -> str:
        """The consumer's name, whether there is one or not."""
        return consumer_name(self.mapping)


def uses(mappings: Sequence[MappingPlan], registry: Registry) -> list[ConsumerUse]:
    """One for each mapping of a Kinesis stream. Raises InvalidConfiguration."""
    return [_use(each, registry) for each in mappings if each.kind is SourceKind.KINESIS]


def _use(mapping: MappingPlan, registry: Registry) -> ConsumerUse:
    part = source_of(mapping)
    plugin = registry.plugin(part.kind, part.name)
    settings = validated(plugin, part.settings(plugin.settings), place=f"mapping {mapping.mapping}")
    identity = getattr(settings, "identity", None)
    stream = NamedStream(stream_of(mapping.source_arn), identity if isinstance(identity, str) else None)
    return ConsumerUse(mapping.mapping, stream, wanted=bool(getattr(settings, "fan_out", False)))


def stream_of(arn: str) -> str:
    """The ARN of the stream of a source, which may be a consumer of it."""
    return arn.partition("/consumer/")[0]


def streams(known: Sequence[ConsumerUse], others: Sequence[NamedStream]) -> list[NamedStream]:
    """Each stream once: those of mappings that want a consumer first, so that they are asked as these mappings do."""
    found: dict[str, NamedStream] = {}
    for each in _ordered(known, others):
        found.setdefault(each.arn, each)
    return list(found.values())


def _ordered(known: Sequence[ConsumerUse], others: Sequence[NamedStream]) -> Iterator[NamedStream]:
    yield from others
    for wanted in (True, False):
        yield from (each.stream for each in known if each.wanted is wanted)


def checked_stream(text: str) -> str:
    """The ARN of a stream that somebody writes. Raises InvalidConfiguration."""
    form = "the ARN of a Kinesis stream; write arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
    try:
        return checked_arn(text, service="kinesis", resource=r"stream/[A-Za-z0-9_.-]{1,128}", form=form)
    except ValueError as error:
        raise InvalidConfiguration([f"--stream: {text!r} {error}"]) from error
