"""Owns the EventBridge destination: documents as events of the source `lambda` on a bus (aws-behaviour#async-destinations).

EventBridge says of an event for a bus that does not exist that it was taken, and drops it. So the bus is looked for before an event is
put, and again every few minutes. Without `events:DescribeEventBus` the answer of PutEvents alone counts.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Annotated, Any

from botocore.exceptions import ClientError
from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling, text_of
from adapters.aws.clients import checked_arn, client
from adapters.aws.permission_checks import for_the_check_alone, tried, untried
from adapters.destinations.checks import ARRIVES, EXISTS
from adapters.destinations.messages import no_dead_letter, send_document
from adapters.destinations.payloads import Payloads
from poller.config.field_types import AS_WHOM, IdentityName
from poller.domain.arns import Arn
from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.findings import Finding
from poller.domain.functions.call_notices import CallNotice
from poller.domain.invocations import Notice
from poller.domain.records import JsonObject, Monotonic
from poller.plugins import Environment, Plugin
from poller.ports import Clock

ENTRY_BYTES_MAX = 1024 * 1024
"""What EventBridge takes in one request: source, type, resources and detail as UTF-8 (aws-behaviour#sizes-and-counts)."""
SOURCE = "lambda"
BATCH_TYPE = "Lambda Event Source Mapping Result - Failure"
"""The type of an event about a batch that a mapping gave up. AWS sends none, so this name is ours."""
LOOK_AGAIN_S = 300.0
SERVER_FAULTS = frozenset({"InternalException", "InternalFailure"})
_DENIED = ("NotAuthorizedForDetailTypeException", "NotAuthorizedForSourceException")
SPECIAL: Mapping[str, type[PortError]] = MappingProxyType(dict.fromkeys(_DENIED, AccessDenied))
"""Codes of PutEvents in addition to those of all services."""


def _bus(text: str) -> str:
    form = "the ARN of an event bus; write arn:aws:events:REGION:ACCOUNT:event-bus/NAME"
    return checked_arn(text, service="events", resource=r"event-bus/[A-Za-z0-9._-]{1,256}", form=form)


class EventsSettings(BaseModel):
    """The ARN of an event bus."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_bus)]
    identity: IdentityName | None = AS_WHOM


class EventsDestination:
    """Puts documents on one bus."""

    def __init__(self, service: Any, bus_arn: str, clock: Clock) -> None:
        self._service = service
        self._bus_arn = bus_arn
        self._clock = clock
        self._name = Arn.parse(bus_arn).resource.removeprefix("event-bus/")
        self._looked: Monotonic | None = None

    async def send(self, notice: Notice) -> None:
        """Puts the document with the event in it, or without one that is too large.

        Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
        """
        entry = self._entry(BATCH_TYPE, [self._bus_arn])
        payloads = Payloads(ENTRY_BYTES_MAX - size(entry), None)
        await payloads.send(notice, lambda detail: self._put({**entry, "Detail": detail}))

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        """Puts the document of a call; raises as `send`."""
        if dead_letter:
            raise no_dead_letter(f"event bus {self._name}")
        entry = self._entry(notice.detail_type, [self._bus_arn, notice.function_arn])
        bytes_max = ENTRY_BYTES_MAX - size(entry)
        await send_document(notice, bytes_max, lambda detail: self._put({**entry, "Detail": detail}))

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the bus exists; puts nothing."""
        trial = await tried("events:DescribeEventBus", self._found(), on=self._bus_arn)
        return [for_the_check_alone(trial, EXISTS), *untried(("events:PutEvents",), ARRIVES)]

    def _entry(self, detail_type: str, resources: list[str]) -> JsonObject:
        return {
            "EventBusName": self._bus_arn,
            "Source": SOURCE,
            "DetailType": detail_type,
            "Resources": resources,
        }

    async def _put(self, entry: JsonObject) -> None:
        await self._look()
        with calling(f"events PutEvents to {self._name}", SPECIAL):
            answer = await self._service.put_events(Entries=[entry])
            if (code := failure(answer)) is not None:
                raise _failed(code)

    async def _look(self) -> None:
        """Raises ResourceMissing if there is no such bus. Any other trouble is left to PutEvents, which is called next."""
        now = self._clock.monotonic()
        if self._looked is not None and now < self._looked + LOOK_AGAIN_S:
            return
        self._looked = None
        # The permission may be missing, or the bus is of an account that lets nobody else look.
        with suppress(AccessDenied, ServiceThrottled, ServiceUnavailable):
            await self._found()
        self._looked = now

    async def _found(self) -> None:
        """Returns if there is such a bus. Raises port errors. Some emulators know a bus by its name alone."""
        try:
            await self._described(self._bus_arn)
        except ResourceMissing:
            if await self._described(self._name) != self._bus_arn:
                raise

    async def _described(self, name: str) -> object:
        with calling(f"events DescribeEventBus to {self._name}"):
            found: object = (await self._service.describe_event_bus(Name=name)).get("Arn")
        return found


def size(entry: JsonObject) -> int:
    """What an entry without its detail counts."""
    texts = [entry["Source"], entry["DetailType"], *entry["Resources"]]
    return sum(len(text.encode()) for text in texts)


def failure(answer: JsonObject) -> str | None:
    """The code with which the one entry was refused; None if it was taken. Raises ValueError and its like for an odd answer."""
    [entry] = answer["Entries"]
    if answer.get("FailedEntryCount") or entry.get("ErrorCode"):
        return str(entry.get("ErrorCode") or "Unknown")
    text_of(entry, "EventId")
    return None


def _failed(code: str) -> ClientError:
    """A refused entry as the client's error for a refused request, so that codes mean the same in both."""
    status = 500 if code in SERVER_FAULTS else 400
    return ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item] # a part
        "PutEvents",
    )


@asynccontextmanager
async def open_events(settings: EventsSettings, env: Environment) -> AsyncIterator[EventsDestination]:
    """Yields the destination. It calls the bus only when there is something to put."""
    service = await client(env.acting_as(settings.identity), "events", Arn.parse(settings.arn).region)
    yield EventsDestination(service, settings.arn, env.clock)


plugin = Plugin("events", EventsSettings, open_events)
