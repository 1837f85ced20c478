"""Owns the custom resources as this worker last saw them, and the loop that follows them.

It lists all of them and then takes one change after the other. After any trouble it lists again, with back-off. Until the first
list nothing is known, and that no resource is known then means nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable

from poller.domain.errors import CursorExpired, PortError
from poller.domain.records import Monotonic
from poller.domain.resources.resource import MappingResource
from poller.ports import Clock
from poller.resource_ports.resources import ResourceChange, ResourceChanged, ResourceFeed, ResourceRemoved

STEADY_S = 60.0
"""After following for so long without trouble, the back-off begins again."""


class KnownResources:
    """The selected resources, by uid. `changed` is called after each change."""

    def __init__(
        self,
        feed: ResourceFeed,
        *,
        clock: Clock,
        wait_s: Callable[[int], float],
        changed: Callable[[], None],
    ) -> None:
        self.listed = False
        """Whether they were listed once."""
        self.namespace_uid = ""
        """The UID of the namespace in which they were listed."""
        self.note = ""
        """One line for people about the trouble of the moment."""
        self._feed = feed
        self._clock = clock
        self._wait_s = wait_s
        self._changed = changed
        self._known: dict[str, MappingResource] = {}

    def all(self) -> tuple[MappingResource, ...]:
        """All of them, by name."""
        return tuple(sorted(self._known.values(), key=lambda each: (each.namespace, each.name)))

    def get(self, uid: str) -> MappingResource | None:
        """One of them."""
        return self._known.get(uid)

    async def run(self) -> None:
        """Follows the resources until cancelled."""
        tries = 0
        while True:
            began = self._clock.monotonic()
            trouble = await self._try(self._follow_once)
            steady = self._clock.monotonic() - Monotonic(began) >= STEADY_S
            tries = 0 if steady else tries + 1
            if trouble is not None and not isinstance(trouble, CursorExpired):
                self.note = f"custom resources: {trouble.reason}"
            await asyncio.sleep(self._wait_s(tries))

    async def _try(self, work: Callable[[], Awaitable[None]]) -> PortError | None:
        try:
            await work()
        except PortError as error:
            return error
        return None

    async def _follow_once(self) -> None:
        uid, found = await self._feed.namespace_uid(), await self._feed.list()
        self.namespace_uid = uid
        self._known = {each.uid: each for each in found.resources}
        self.listed, self.note = True, ""
        self._changed()
        async with self._feed.changes(found.version) as changes:
            async for change in changes:
                self._take(change)
                self._changed()

    def _take(self, change: ResourceChange) -> None:
        match change:
            case ResourceChanged(resource):
                self._known[resource.uid] = resource
            case ResourceRemoved(resource):
                self._known.pop(resource.uid, None)
