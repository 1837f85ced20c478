"""Owns to which consumer a stream's records are pushed: one that the mapping names, or one of the mapping's own (aws-behaviour#consumers-of-a-stream).

A consumer of the mapping's own is looked for when it is first needed, and registered if there is none. All workers of the mapping look
for the same name, so that the second one finds what the first has registered. It is never removed here: it may be another worker's.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from adapters.aws.calls import calling, text_of, understood
from poller.domain.arns import Arn
from poller.domain.errors import PortError, ResourceMissing, ServiceThrottled, ServiceUnavailable
from poller.domain.records import JsonObject, MappingId
from poller.domain.streams.consumer_names import consumer_name
from poller.domain.telemetry.labels import SourceCall
from poller.domain.untrusted.texts import line_of
from poller.ports import Clock
from poller.source_ports.calls import CallCounter, uncounted

ACTIVE = "ACTIVE"
LOOK = "kinesis DescribeStreamConsumer"
REGISTER = "kinesis RegisterStreamConsumer"
LOOK_S_MAX = 10.0
"""How long one try to find or register the consumer may take. The shard that makes it is not read meanwhile; others are."""
AGAIN_S = 2.0
AGAIN_S_MAX = 60.0
"""Shortest and longest time between two tries. The service takes five registrations a second of a whole account."""
DOUBLINGS_MAX = 8
ARN_CHARS_MAX = 2_048
STATUS_CHARS_MAX = 40
NO_ROOM = (
    "the stream has as many consumers as it may have, or five are being registered; "
    "`poller consumers list` shows those of no mapping"
)


class _Taken(PortError):
    """There is a consumer with this name. Describe it."""


class _NoRoom(PortError):
    """No consumer can be registered now. Say why, and try again later."""


_REGISTER_REFUSED: Mapping[str, type[PortError]] = MappingProxyType(
    {"ResourceInUseException": _Taken, "LimitExceededException": _NoRoom}
)


class ConsumerApi(Protocol):
    """The operations that are used."""

    async def describe_stream_consumer(self, **parameters: Any) -> JsonObject:
        """DescribeStreamConsumer."""
        ...

    async def register_stream_consumer(self, **parameters: Any) -> JsonObject:
        """RegisterStreamConsumer."""
        ...


class StreamConsumer(Protocol):
    """The consumer that records are pushed to."""

    @property
    def parameters(self) -> Mapping[str, str]:
        """By which DescribeStreamConsumer finds it."""
        ...

    async def active(self) -> str:
        """Its ARN. Raises PortError as long as it cannot be subscribed with, which is cheap to ask often."""
        ...

    async def named(self) -> str:
        """The ARN that events name; empty if that is the one that the mapping has, or if it is not known yet. Raises no PortError."""
        ...

    def lost(self) -> None:
        """Says that the service does not know it any more."""
        ...

    def count_calls(self, count: CallCounter) -> None:
        """From now on `count` gets each call as it is sent."""
        ...


class GivenConsumer:
    """The consumer that a mapping names. Nothing is known of it but its ARN."""

    def __init__(self, arn: str) -> None:
        self._arn = arn

    @property
    def parameters(self) -> Mapping[str, str]:
        """The ARN."""
        return {"ConsumerARN": self._arn}

    async def active(self) -> str:
        """The ARN. Whether it is active shows when it is subscribed with."""
        return self._arn

    async def named(self) -> str:
        """Nothing: the mapping's own ARN is that of the consumer."""
        return ""

    def lost(self) -> None:
        """Nothing changes: somebody else registers it."""

    def count_calls(self, _count: CallCounter) -> None:
        """Nothing is called."""


class OwnConsumer:
    """A consumer of the mapping's own, found or registered at the first need, and again when it is lost."""

    def __init__(self, api: ConsumerApi, *, stream: str, mapping: MappingId, clock: Clock) -> None:
        self._api = api
        self._stream = stream
        self._name = consumer_name(mapping)
        self._clock = clock
        self._arn = ""
        """As it was last known. It stays when the consumer is lost, until there is another one."""
        self._active = False
        self._trouble: PortError | None = None
        self._tries = 0
        self._again_s = 0.0
        """When (monotonic) another try is due, after one that failed."""
        self._trying = asyncio.Lock()
        self._count: CallCounter = uncounted

    def count_calls(self, count: CallCounter) -> None:
        """From now on `count` gets each call as it is sent."""
        self._count = count

    @property
    def parameters(self) -> Mapping[str, str]:
        """The stream and the name."""
        return {"StreamARN": self._stream, "ConsumerName": self._name}

    async def active(self) -> str:
        """Its ARN once it is active. Otherwise tries to get there if a try is due, and raises why it is not."""
        if not self._active and not self._trying.locked():
            await self._try()
        if self._active:
            return self._arn
        if self._trouble is None:
            raise ServiceUnavailable(f"{LOOK}: consumer {self._name} is being looked for")
        raise type(self._trouble)(self._trouble.reason)

    async def named(self) -> str:
        """Its ARN as far as it is known. Only the first time, a try is made for it."""
        if not self._arn and self._trouble is None:
            await self._try()
        return self._arn

    def lost(self) -> None:
        """It is looked for again at the next need."""
        self._active = False

    async def _try(self) -> None:
        async with self._trying:
            if self._active or (self._trouble is not None and self._clock.monotonic() < self._again_s):
                return
            try:
                async with asyncio.timeout(LOOK_S_MAX):
                    await self._look()
            except TimeoutError:
                self._failed(ServiceUnavailable(f"{LOOK}: no answer within {LOOK_S_MAX:g} s"))
            except PortError as error:
                self._failed(error)
            else:
                self._active, self._trouble, self._tries = True, None, 0

    def _failed(self, error: PortError) -> None:
        wait_s = min(AGAIN_S * 2.0**self._tries, AGAIN_S_MAX)
        self._tries = min(self._tries + 1, DOUBLINGS_MAX)
        self._again_s = self._clock.monotonic() + wait_s
        self._trouble = error

    async def _look(self) -> None:
        """Returns if the consumer is active. Raises PortError if it is not yet, or cannot be had."""
        found = await self._described()
        if found is None:
            found = await self._registered()
        with understood(LOOK):
            status, arn = text_of(found, "ConsumerStatus"), _arn(found)
        if status != "DELETING":
            self._arn = arn
        if status != ACTIVE:
            raise ServiceUnavailable(f"{LOOK}: consumer {self._name} is not active yet: {_meaning(status)}")

    async def _described(self) -> JsonObject | None:
        """The consumer's description; None if there is no such consumer, or no stream."""
        self._count(SourceCall.DESCRIBE_STREAM_CONSUMER)
        try:
            with calling(LOOK):
                reply = await self._api.describe_stream_consumer(**self.parameters)
        except ResourceMissing:
            return None
        with understood(LOOK):
            return _object(reply["ConsumerDescription"])

    async def _registered(self) -> JsonObject:
        """A new consumer, or the one that another worker has registered meanwhile."""
        self._count(SourceCall.REGISTER_STREAM_CONSUMER)
        try:
            with calling(REGISTER, _REGISTER_REFUSED):
                reply = await self._api.register_stream_consumer(**self.parameters)
        except _Taken as error:
            found = await self._described()
            if found is None:
                raise ServiceUnavailable(f"{error.reason}, but there is none to be described") from error
            return found
        except _NoRoom as error:
            raise ServiceThrottled(f"{error.reason}: {NO_ROOM}") from error
        with understood(REGISTER):
            return _object(reply["Consumer"])


def _meaning(status: str) -> str:
    match status:
        case "CREATING":
            return "it is being registered (CREATING)"
        case "DELETING":
            return "it is being removed (DELETING), and is registered again then"
        case _:
            return f"its status is {line_of(status, chars_max=STATUS_CHARS_MAX)}"


def _arn(found: JsonObject) -> str:
    arn = text_of(found, "ConsumerARN")
    if len(arn) > ARN_CHARS_MAX or not arn.isprintable():
        raise ValueError("ConsumerARN is no ARN")
    Arn.parse(arn)
    return arn


def _object(found: Any) -> JsonObject:
    if not isinstance(found, dict):
        raise TypeError("it is no object")
    return found
