"""Owns the wait of a stream's batch for a permit and then for a slot of the function."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from poller.domain.records import MappingId
from poller.runtime.flow_control.flow_control import FlowControl, Permit
from poller.runtime.slots import Slots
from poller.runtime.stopping import Stop, interrupted_by


@asynccontextmanager
async def permitted_slot(
    flow: FlowControl,
    slots: Slots,
    mapping: MappingId,
    *,
    records: int,
    stop: Stop,
    borrows: bool = False,
) -> AsyncIterator[Permit | None]:
    """Has a slot and a started permit for a call of so many records inside the block; None, and no slot, if a stop came first.

    `borrows`: the slot may be one that a poll lends.
    """
    permit = await _taken(flow, slots, mapping, records=records, stop=stop, borrows=borrows)
    if permit is None:
        yield None
        return
    try:
        yield permit
    finally:
        permit.free()
        slots.release()


async def _taken(
    flow: FlowControl, slots: Slots, mapping: MappingId, *, records: int, stop: Stop, borrows: bool
) -> Permit | None:
    """Takes a slot and starts a permit; returns None and holds nothing if a stop came first."""
    async with interrupted_by(stop):
        while True:
            permit = await flow.permit(mapping, records)
            try:
                await slots.acquire(borrows=borrows)
            except BaseException:
                permit.free()
                raise
            lost = stop.lost
            if not lost and permit.start(records):
                return permit
            # The lease was lost, or the breaker opened, while this call waited for its slot.
            slots.release()
            permit.free()
            if lost:
                break
    return None
