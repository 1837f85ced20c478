"""Owns the listing of one stream's shards, for all mappings of a daemon that read the stream with the same credentials.

One walk over the pages runs at a time. Who asks meanwhile waits for the next walk, together with all others who do: a walk that has
begun may already have passed what changed since. Only a caller that says from which moment on an answer will do gets an older one.

1. An answer is used for a call if its walk began after the call, or at the call's `since` or later.
2. A walk that failed between two pages is kept, and goes on at its page for a caller whose `since` is not later than its beginning.
3. The failure of a walk is that of all who waited for it, so that a service that is down is not asked once for each of them.
4. The calls of a walk are counted for whoever makes it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakValueDictionary

from poller.domain.errors import CursorExpired, PortError, ServiceThrottled, ServiceUnavailable
from poller.domain.records import Monotonic, Shard
from poller.plugins import Environment
from poller.ports import Clock
from poller.source_ports.calls import CallCounter, uncounted
from poller.source_ports.listing import ShardListing

SHARDS_MAX = 100_000
"""Shards of one listing. They take 400 bytes each at most."""
PAGES_MAX = 2_000
"""Pages of one listing. A page may have fewer shards than it could."""
WALKS_MAX = 3
"""How often a walk is begun again because its page token expired, which happens after five minutes."""
THROTTLES_MAX = 8
"""How often in a row a page behind the first one is asked for again after it was throttled."""
BACK_OFF_S = 0.5
BACK_OFF_MAX_S = 16.0
FAILURES_MAX = 3
"""Failures in a row at the same page. Then the walk is given up, since the page may be the reason."""


@dataclass(frozen=True, slots=True)
class ShardPage:
    """A page of a listing, and the token of the next one; None for the last page."""

    shards: Sequence[Shard]
    following: str | None


type PageCall = Callable[[str | None, CallCounter], Awaitable[ShardPage]]
"""Asks for the page of a token, None for the first one, and counts the call. Raises CursorExpired if the token is too old."""


@dataclass(slots=True)
class _Walk:
    number: int
    began: Monotonic
    token: str | None = None
    pages: int = 0
    shards: list[Shard] = field(default_factory=list)
    failures: int = 0
    tokens: set[str] = field(default_factory=set)
    """Those of the pages so far."""

    def begin_again(self) -> None:
        self.token, self.pages, self.failures = None, 0, 0
        self.shards.clear()
        self.tokens.clear()

    def take(self, page: ShardPage) -> None:
        self.shards += page.shards
        self.token = page.following
        self.pages += 1
        self.failures = 0
        if page.following is not None:
            self.tokens.add(page.following)

    def end(self) -> None:
        """All pages are there. A shard that more than one of them had counts once, as the last one showed it."""
        each_once = {each.shard_id: each for each in self.shards}
        if len(each_once) < len(self.shards):
            self.shards = list(each_once.values())
        self.tokens.clear()


class SharedListing:
    """The shards of one stream. `operation` names the call for people ("kinesis ListShards")."""

    def __init__(self, page: PageCall, *, operation: str, clock: Clock) -> None:
        self._page = page
        self._operation = operation
        self._clock = clock
        self._turn = asyncio.Lock()
        self._begun = 0
        """Walks that were begun so far."""
        self._last: _Walk | None = None
        """The last walk that came to its end."""
        self._interrupted: _Walk | None = None
        self._failure: tuple[int, PortError] | None = None
        """The failure of the last walk, with the walk's number; None if it did not fail."""

    @property
    def known(self) -> Sequence[Shard]:
        """The shards as they were listed last; empty before that."""
        return () if self._last is None else self._last.shards

    async def listed(self, count: CallCounter = uncounted) -> Sequence[Shard]:
        """All shards, from a walk that begins after this call. Raises PortError."""
        return (await self._served(None, count)).shards

    async def since(self, moment: Monotonic, count: CallCounter = uncounted) -> ShardListing:
        """All shards, from a walk that began at `moment` or later. Raises PortError."""
        walk = await self._served(moment, count)
        return ShardListing(walk.shards, walk.began)

    async def _served(self, since: Monotonic | None, count: CallCounter) -> _Walk:
        begun = self._begun
        async with self._turn:
            if self._last is not None and _serves(self._last, begun, since):
                return self._last
            if self._failure is not None and self._failure[0] > begun:
                error = self._failure[1]
                raise type(error)(error.reason) from error
            return await self._walked(since, count)

    async def _walked(self, since: Monotonic | None, count: CallCounter) -> _Walk:
        walk = self._interrupted
        if walk is None or since is None or walk.began < since:
            self._begun += 1
            walk = _Walk(self._begun, self._clock.monotonic())
        # It stays the interrupted one if this call is cancelled.
        self._interrupted = walk
        try:
            await self._walk(walk, count)
        except PortError as error:
            walk.failures += 1
            passing = isinstance(error, (ServiceThrottled, ServiceUnavailable))
            if not (passing and walk.pages and walk.failures < FAILURES_MAX):
                self._interrupted = None
            self._failure = (walk.number, error)
            raise
        self._interrupted = self._failure = None
        self._last = walk
        return walk

    async def _walk(self, walk: _Walk, count: CallCounter) -> None:
        expired = 0
        while walk.token is not None or not walk.pages:
            try:
                page = await self._asked(walk, count)
            except CursorExpired:
                expired += 1
                walk.begin_again()
                if expired == WALKS_MAX:
                    text = f"{self._operation}: the page token expired {WALKS_MAX} times"
                    raise ServiceUnavailable(text) from None
                continue
            if page.following in walk.tokens:
                walk.begin_again()
                raise ServiceUnavailable(f"{self._operation}: the same page again")
            walk.take(page)
            if len(walk.shards) > SHARDS_MAX or walk.pages > PAGES_MAX:
                walk.begin_again()
                text = f"more than {SHARDS_MAX} shards or {PAGES_MAX} pages; a stream of this size cannot be read"
                raise ServiceUnavailable(f"{self._operation}: {text}")
        walk.end()

    async def _asked(self, walk: _Walk, count: CallCounter) -> ShardPage:
        """The next page. What the pages before it gave is worth some waits, so that a throttle there is waited out."""
        for tries in range(THROTTLES_MAX if walk.pages else 0):
            try:
                return await self._page(walk.token, count)
            except ServiceThrottled:
                wait_s = min(BACK_OFF_S * 2.0**tries, BACK_OFF_MAX_S)
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
        return await self._page(walk.token, count)


def _serves(walk: _Walk, begun: int, since: Monotonic | None) -> bool:
    """Whether a walk will do for a call before which `begun` walks had begun. Numbers tell what is at the same moment apart."""
    return walk.number > begun or (since is not None and walk.began >= since)


async def shared_by[ListingT](
    env: Environment, service: str, arn: str, make: Callable[[], ListingT]
) -> ListingT:
    """The daemon's listing of a stream for the environment's identity and endpoint. It goes with the last source that has it."""
    identity = "" if env.identity is None else env.identity.name
    known = await env.shared.get("listings", _none_yet)
    key = (service, arn, identity, env.endpoint(service))
    found = known.get(key)
    if found is None:
        found = known[key] = make()
    return cast("ListingT", found)


@asynccontextmanager
async def _none_yet() -> AsyncIterator[WeakValueDictionary[tuple[str | None, ...], Any]]:
    yield WeakValueDictionary()
