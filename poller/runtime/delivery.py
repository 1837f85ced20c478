"""Owns the delivery of notices: tried again until it succeeds, unless the mapping says to drop (DESIGN, section 6)."""

import asyncio
from enum import Enum, auto

from poller.errors import PortError, ServiceUnavailable
from poller.invocations import Notice
from poller.plan import OnDestinationFailure
from poller.ports import Destination
from poller.runtime.parts import Parts
from poller.runtime.stopping import Stop
from poller.telemetry import DestinationFailed

SEND_S_MAX = 60.0
"""How long one send may take before it counts as failed."""


class Delivered(Enum):
    """What became of a notice."""

    YES = auto()
    DROPPED = auto()
    STOPPED = auto()
    """The scope stopped first; the batch is still unsettled."""


async def deliver(notice: Notice, destination: Destination, parts: Parts, stop: Stop) -> Delivered:
    """Sends the notice until the destination has it, or drops it when the mapping says so."""
    tries = 0
    while True:
        try:
            await _send(notice, destination)
        except PortError as error:
            dropped = parts.plan.on_destination_failure is OnDestinationFailure.DROP
            wait_s = None if dropped else parts.port_wait_s(tries)
            parts.observer.on(
                DestinationFailed(
                    mapping=notice.mapping, shard=notice.shard, reason=error.reason, wait_s=wait_s
                )
            )
            if wait_s is None:
                return Delivered.DROPPED
            if await stop.sleep(wait_s):
                return Delivered.STOPPED
            tries += 1
        else:
            return Delivered.YES


async def _send(notice: Notice, destination: Destination) -> None:
    try:
        async with asyncio.timeout(SEND_S_MAX):
            await destination.send(notice)
    except TimeoutError:
        raise ServiceUnavailable(f"no answer within {SEND_S_MAX:g} s") from None
