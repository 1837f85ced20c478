"""Owns the calls that list and remove the consumers of streams. Only those with the prefix of mappings' own consumers are seen."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from adapters.aws.calls import calling, text_of, understood
from adapters.aws.clients import client
from adapters.commands.consumers.configured import ConsumerUse, NamedStream
from poller.domain.arns import Arn
from poller.domain.errors import CursorExpired, PortError, ResourceMissing, ServiceUnavailable
from poller.domain.records import JsonObject
from poller.domain.streams.consumer_names import PREFIX
from poller.domain.untrusted import numbers
from poller.domain.untrusted.texts import line_of
from poller.plugins import Environment

LIST = "kinesis ListStreamConsumers"
REMOVE = "kinesis DeregisterStreamConsumer"
PAGES_MAX = 20
"""A stream has 50 consumers at most, and a page has up to 100."""
STATUS_CHARS_MAX = 40
DELETING = "DELETING"
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_ARN = re.compile(r"arn:[!-~]{1,2000}")
_TOKEN_EXPIRED: Mapping[str, type[PortError]] = MappingProxyType({"ExpiredNextTokenException": CursorExpired})


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredConsumer:
    """A consumer of a mapping's own that a stream has. `since` is when it was registered; `use` is the mapping that it belongs to."""

    name: str
    arn: str
    status: str
    since: float | None
    stream: NamedStream
    use: ConsumerUse | None

    @property
    def wanted(self) -> bool:
        """Whether a mapping would register it again."""
        return self.use is not None and self.use.wanted


async def listed(
    env: Environment, stream: NamedStream, known: Sequence[ConsumerUse]
) -> list[RegisteredConsumer]:
    """The consumers of a stream that mappings have of their own, of these mappings or of others. Raises PortError."""
    kinesis_api = await _api(env, stream)
    of = {each.name: each for each in known if each.stream.arn == stream.arn}
    found: list[RegisteredConsumer] = []
    parameters: dict[str, Any] = {"StreamARN": stream.arn}
    for _ in range(PAGES_MAX):
        with calling(LIST, _TOKEN_EXPIRED):
            reply = await kinesis_api.list_stream_consumers(**parameters)
        with understood(LIST):
            members = [_members(each) for each in reply.get("Consumers") or ()]
            token = reply.get("NextToken")
        found += [
            RegisteredConsumer(**each, stream=stream, use=of.get(each["name"]))
            for each in members
            if each["name"].startswith(PREFIX)
        ]
        if not token:
            return found
        parameters["NextToken"] = token
    raise ServiceUnavailable(f"{LIST}: more than {PAGES_MAX} pages of consumers")


async def removed(env: Environment, consumer: RegisteredConsumer) -> None:
    """Removes a consumer. It is no error if it is gone. Raises PortError."""
    assert consumer.name.startswith(PREFIX)
    assert not consumer.wanted
    kinesis_api = await _api(env, consumer.stream)
    try:
        with calling(REMOVE):
            await kinesis_api.deregister_stream_consumer(ConsumerARN=consumer.arn)
    except ResourceMissing:
        return


async def _api(env: Environment, stream: NamedStream) -> Any:
    return await client(env.acting_as(stream.identity), "kinesis", Arn.parse(stream.arn).region)


def _fitting(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError("another form")
    return text


def _members(wire: JsonObject) -> dict[str, Any]:
    moment = numbers.moment(wire.get("ConsumerCreationTimestamp"), default=None)
    name = _fitting(_NAME, text_of(wire, "ConsumerName"))
    arn = _fitting(_ARN, text_of(wire, "ConsumerARN"))
    if arn.rpartition("/consumer/")[2].partition(":")[0] != name:
        # A consumer is removed by its ARN, so that another one's must not stand beside the name.
        raise ValueError("the ARN is not that of the name")
    return {
        "name": name,
        "arn": arn,
        "status": line_of(text_of(wire, "ConsumerStatus"), chars_max=STATUS_CHARS_MAX),
        "since": moment,
    }
