"""Owns the destination that a replay names: its notices are kept as those of the mapping that the replay belongs to."""

from dataclasses import replace

from poller.domain.invocations import Notice
from poller.domain.records import MappingId
from poller.ports import Destination


class OwnDestination:
    """A Destination whose notices have the id of the mapping, and not the id that its replay has in the store.

    Files and objects are named by that id, and a redrive of the mapping looks for them by it.
    """

    def __init__(self, destination: Destination, mapping: MappingId) -> None:
        self._destination = destination
        self._mapping = mapping

    async def send(self, notice: Notice) -> None:
        """Returns when the destination has stored the notice. Raises what the destination raises."""
        await self._destination.send(replace(notice, mapping=self._mapping))
