"""Owns the daemon's memory: accounts, calls that wait for room, and what is shown of it."""

import asyncio
from math import inf

from poller.domain.records import Monotonic
from poller.domain.telemetry.daemon_events import MemoryUsed
from poller.domain.telemetry.observers import Observer
from poller.memory.answers import AnswerTooLarge
from poller.rules.memory.byte_budget import FOR_EVER, UNTIL_IDLE, Account, ByteBudget, Patience, Want
from poller.rules.memory.sizes import CALL_BYTES_MIN
from poller.runtime.memory.limits import bytes_of
from poller.runtime.stopping import wait_until

AGAIN_S = 5.0
"""Who waits for room looks again after this time: its account may use nothing any more, and has another patience then."""
SHOWN_S = 1.0
"""What is held is reported once in this time, while it changes."""
WITHOUT_LIMIT = 1 << 60
"""The bytes of a pool that nobody has to wait for."""


class MemoryPool:
    """The bytes that a daemon may hold. Without `memory_mb`, as `follow` gives it, nobody waits."""

    def __init__(self, observer: Observer | None = None) -> None:
        self.budget = ByteBudget(WITHOUT_LIMIT)
        self._observer = observer
        self._events: dict[Want, asyncio.Event] = {}
        self._shown: asyncio.TimerHandle | None = None

    def follow(self, memory_mb: int | None) -> None:
        """Takes over a setting; None: what fits this process."""
        total = bytes_of(memory_mb)
        if total != self.budget.total:
            self.budget.resize(total)
            self.changed()

    def account(self) -> "MemoryAccount":
        """A new account, for a shard or a queue mapping."""
        return MemoryAccount(self)

    def notes(self) -> list[str]:
        """A note for people while calls wait for room."""
        waiting, used, total = self.budget.waiting, self.budget.used, self.budget.total
        if not waiting and used <= total:
            return []
        held = f"{used / 2**20:.0f} of {total / 2**20:.0f} MB are held or reserved (tuning.memory_mb)"
        return [f"memory: {waiting} calls of sources wait for room; {held}"]

    async def granted(self, want: Want, *, within_s: float = inf) -> bool:
        """Waits until a want is granted. Returns False, and gives it up, if it is not within this time."""
        if want.granted is not None:
            self.changed()
            return True
        now = self.now
        until = now + within_s
        event = self._events[want] = asyncio.Event()
        try:
            while not self.budget.press(want, now=now):
                if now >= until:
                    return False
                self.changed()
                wait_s = min(until, self.budget.pressing_at(want), now + AGAIN_S) - now
                await wait_until(event, wait_s)
                now = self.now
            return True
        except BaseException:
            self.budget.give_back(want)
            raise
        finally:
            del self._events[want]
            if want.granted is None:
                self.budget.give_back(want)
            self.changed()

    def changed(self) -> None:
        """Wakes calls that have room now, and sees to it that what is held is reported."""
        for each in self.budget.newly_granted():
            event = self._events.get(each)
            if event is not None:
                event.set()
        if self._shown is None and self._observer is not None:
            self._shown = asyncio.get_running_loop().call_later(SHOWN_S, self._show)

    @property
    def now(self) -> Monotonic:
        """The time of the loop."""
        return Monotonic(asyncio.get_running_loop().time())

    def _show(self) -> None:
        self._shown = None
        assert self._observer is not None
        budget = self.budget
        self._observer.on(MemoryUsed(used=budget.used, limit=budget.total, waiting=budget.waiting))


class MemoryAccount:
    """What one shard or queue mapping holds, and the room of its calls."""

    def __init__(self, pool: MemoryPool) -> None:
        self._pool = pool
        self._account: Account = pool.budget.open()
        self._closed = False

    @property
    def total(self) -> int:
        """What all accounts may hold together."""
        return self._pool.budget.total

    @property
    def held(self) -> int:
        """How many bytes it holds."""
        return self._account.held

    def hold(self, size: int, *, starving: bool = False) -> None:
        """Says how many bytes it holds now, and whether they can be settled before its calls bring more.

        Nothing is counted behind `close`, since nobody would give it back.
        """
        account = self._account
        if (size != account.held or starving is not account.starving) and not self._closed:
            self._pool.budget.hold(account, size, starving=starving)
            self._pool.changed()

    def close(self) -> None:
        """Gives back everything."""
        self._closed = True
        self._pool.budget.close(self._account)
        self._pool.changed()

    @property
    def page_bytes(self) -> int:
        """How much a call should reserve at most."""
        return self._pool.budget.page_bytes

    async def room(
        self, *, least: int, most: int, within_s: float = inf, patience: Patience = UNTIL_IDLE
    ) -> "CallRoom | None":
        """Waits for room for a call. None if there is none within this time."""
        pool = self._pool
        want = pool.budget.want(self._account, least=least, most=most, now=pool.now, patience=patience)
        if not await pool.granted(want, within_s=within_s):
            return None
        return CallRoom(pool, want)

    def room_now(self, *, least: int, most: int) -> "CallRoom | None":
        """Room for a call without a wait; None if there is none, or if others wait for it."""
        pool = self._pool
        want = pool.budget.want(self._account, least=least, most=most, now=pool.now)
        if want.granted is None:
            pool.budget.give_back(want)
        pool.changed()
        return CallRoom(pool, want) if want.granted else None


class CallRoom:
    """The room of one call. It is given back when the call's records are counted as held, or when it has failed."""

    def __init__(self, pool: MemoryPool, want: Want) -> None:
        self.granted = want.granted or 0
        """How many bytes the call may bring, as it was when it began."""
        self.answer = 0
        """Bytes that its answers take; 0 if the adapter does not say."""
        self.answer_s = inf
        """How long an answer waits."""
        self.patience = UNTIL_IDLE
        """When an answer is let in although there is no room; `FOR_EVER`: never, since smaller pieces can be asked for, and no more
        than `ByteBudget.answer_bytes`."""
        self.factor = 1.0
        """What an answer takes in memory, for each byte of it."""
        self._pool = pool
        self._want: Want | None = want
        self._closed = False

    async def make(self, answer_bytes: int) -> None:
        """As `AnswerRoom.make`."""
        pool, want = self._pool, self._want
        if want is None:
            return
        needed = self.answer + int(answer_bytes * self.factor)
        if needed > (want.granted or 0):
            if self.patience is FOR_EVER and needed > pool.budget.answer_bytes:
                raise AnswerTooLarge(needed, self.granted)
            self._want = None
            want = pool.budget.exchange(want, needed, now=pool.now, patience=self.patience)
            if not await pool.granted(want, within_s=self.answer_s):
                raise AnswerTooLarge(needed, self.granted)
            if self._closed:
                # A call may end before its answer has room: an event that is pushed is taken by a later read.
                pool.budget.give_back(want)
                pool.changed()
                return
            self._want = want
        self.answer = needed

    def spare(self) -> None:
        """As `AnswerRoom.spare`."""
        if self._want is not None:
            self._pool.budget.give_back(self._want, keep=CALL_BYTES_MIN)
            self._pool.changed()

    def close(self) -> None:
        """Gives the room back."""
        self._closed = True
        want, self._want = self._want, None
        if want is not None:
            self._pool.budget.give_back(want)
            self._pool.changed()
