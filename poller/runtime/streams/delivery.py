"""Owns the delivery of notices: repeated until it succeeds, unless the mapping says `drop`, as AWS does (aws-behaviour#delivery-of-documents)."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.invocations import Notice
from poller.domain.plan import OnDestinationFailure
from poller.domain.telemetry.mapping_events import DestinationFailed
from poller.ports import Destination
from poller.runtime.context import MappingContext
from poller.runtime.foreign_calls import isolated
from poller.runtime.stopping import Reason, Stop, interrupted_by
from poller.runtime.watched_tasks import reason_of

SEND_S_MAX = 60.0
"""How long one send may take before it counts as failed."""


type OnFailure = Callable[[str, float], None]
"""Called with the reason why a send failed, and the seconds until the next try."""


class Delivered(Enum):
    """The result of a delivery."""

    YES = auto()
    DROPPED = auto()
    STOPPED = auto()
    """The scope stopped first; the batch is still unsettled."""


async def deliver(
    notice: Notice,
    destination: Destination,
    parts: MappingContext,
    stop: Stop,
    *,
    keep: bool,
    on_failure: OnFailure,
) -> Delivered:
    """Sends the notice until the destination has it, or drops it when the mapping says so and it need not be kept."""
    tries = 0
    while True:
        try:
            async with interrupted_by(stop, Reason.LOST):
                await _send(notice, destination)
                return Delivered.YES
            return Delivered.STOPPED
        except PortError as error:
            dropped = not keep and parts.plan.discard.on_destination_failure is OnDestinationFailure.DROP
            wait_s = None if dropped else parts.port_wait_s(tries)
            parts.observer.on(
                DestinationFailed(
                    mapping=notice.mapping, shard=notice.shard, reason=error.reason, wait_s=wait_s
                )
            )
            if wait_s is None:
                return Delivered.DROPPED
            on_failure(error.reason, wait_s)
            if await stop.sleep(wait_s):
                return Delivered.STOPPED
            tries += 1


async def _send(notice: Notice, destination: Destination) -> None:
    try:
        async with asyncio.timeout(SEND_S_MAX):
            # A send that does not end when it is cancelled is left running, and a second one begins: a notice may arrive twice.
            await isolated(destination.send, notice, name="notice", left_behind=_leave)
    except TimeoutError:
        raise ServiceUnavailable(f"no answer within {SEND_S_MAX:g} s") from None
    except PortError:
        raise
    except Exception as error:
        # A plug-in may raise any exception. The batch waits for its notice in any case.
        raise ServiceUnavailable(f"the destination failed: {reason_of(error)}") from error


def _leave(_: asyncio.Task[None]) -> None:
    """Does nothing: nothing waits for a send that does not end."""
