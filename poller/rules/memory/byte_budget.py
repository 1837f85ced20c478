"""Owns how the bytes that the daemon may hold are shared among those who read.

Each shard and each queue mapping has an account. It counts what the account *holds*, records and messages that are not settled, and
what is *reserved* for calls that are under way. Before a call its reader wants room, and says how little would do and how much it
can use. Without room it waits.

Who waits is served in turn: first answers that are known to be coming, since something at the service waits for them; then those
whose accounts use nothing; then the others, which have records to run. Accounts take turns, so that one with many calls leaves
room for one with few. What is free is divided by the number of those who wait. A call that needs more than is free is waited for, unless
its account uses more than its part of the whole already: it may keep that for hours, and others can do with less.

Held records leave only when they are settled, and a blocked shard may keep its records for hours. So others must not depend on
it. A part of the whole is kept free for accounts that use nothing, a small unit for each. And who has waited long is granted the least
that it wants even if all is used; a call no more than a unit, since its answer wants its real size. Then more is used than there is,
until something is settled. A call of who uses more than its part of the whole waits on, so that blocked shards do not use more and
more, unless nothing of that can be settled before the call.

Nobody waits for room while a reservation is kept for the same call: `exchange` gives back the estimate and wants the real size.
"""

from dataclasses import dataclass, field
from math import inf

from poller.domain.records import Monotonic

UNIT_BYTES = 64 * 1024
"""What is kept free for each account."""
UNITS_PART = 4
"""No more than this part, a quarter, is kept free for units."""
IDLE_PATIENCE_S = 1.0
"""After this wait an account that uses nothing is granted the least that it wants, whatever is used."""
HOLDING_PATIENCE_S = 10.0
"""The same for a shard that holds something. Its records may be those of a blocked lane, and other lanes need new ones."""
PAGE_BYTES = 2_500_000
"""More than a shard gives in a second. Nobody needs to reserve more at once while others may need room."""


@dataclass(frozen=True, slots=True)
class Patience:
    """After how many seconds a want is granted its least whatever is used: of an account that uses nothing, and of another one."""

    idle_s: float = IDLE_PATIENCE_S
    holding_s: float = HOLDING_PATIENCE_S


UNTIL_IDLE = Patience(holding_s=inf)
"""Whoever uses something waits until some of that is settled."""
FOR_EVER = Patience(inf, inf)
"""For what can be asked for again, in smaller pieces."""


@dataclass(slots=True, eq=False)
class Account:
    """The bytes of one shard or queue mapping. Only the budget changes them."""

    held: int = 0
    reserved: int = 0
    starving: bool = False
    """Whether nothing that it holds can be settled before its calls bring more."""
    pressed: Monotonic | None = None
    """When it was last granted room that there was not."""
    let_in: Monotonic | None = None
    """The same for an answer. Calls that are pressed do not delay answers, which are given up after a time."""
    calls: dict["Want", None] = field(default_factory=dict)
    """Those that wait for room before a call, the first one first."""

    @property
    def used(self) -> int:
        """What it holds, and what is reserved for it."""
        return self.held + self.reserved


@dataclass(slots=True, eq=False)
class Want:
    """Room for one call. `granted` is None while it waits, and 0 when it is over."""

    account: Account
    least: int
    most: int
    since: Monotonic
    answer: bool
    patience: Patience
    granted: int | None = None

    @property
    def bare(self) -> int:
        """What it is granted where room is kept or made for it: an answer what it takes, a call no more than a unit."""
        return self.least if self.answer else min(self.least, UNIT_BYTES)


class ByteBudget:
    """All accounts of a daemon. `total` is in bytes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        """What is held and reserved. It may be more than `total` for a while."""
        self._accounts: set[Account] = set()
        self._answers: dict[Want, None] = {}
        self._idle: dict[Account, None] = {}
        """Accounts that have calls waiting and use nothing, in the order of their turns."""
        self._busy: dict[Account, None] = {}
        """The same of those that use something."""
        self._calls = 0
        self._granted: list[Want] = []

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._answers) + self._calls

    @property
    def free(self) -> int:
        """What anybody may be granted now; 0 or less when there is no room."""
        return self.total - self._kept - self.used

    @property
    def largest(self) -> int:
        """More than this is never asked for: a call that needs more begins when there is so much."""
        return self.total - self.total // UNITS_PART

    @property
    def page_bytes(self) -> int:
        """How much one account should reserve for a call at most: its part of the whole, or more while much is free."""
        return max(self.part, min(PAGE_BYTES, self.free // 4))

    @property
    def answer_bytes(self) -> int:
        """How much an answer may take that can be asked for again in smaller pieces: half of what is free, or its part of the whole.

        So no account fills the whole with one answer, and then keeps it while it is blocked.
        """
        return min(self.largest, max(self.part, self.free // 2))

    @property
    def part(self) -> int:
        """The part of one account if all have the same."""
        return (self.total - self._kept) // max(1, len(self._accounts))

    def open(self) -> Account:
        """A new account."""
        account = Account()
        self._accounts.add(account)
        return account

    def close(self, account: Account) -> None:
        """Gives back what an account holds. Its calls give back their own room."""
        self.hold(account, 0)
        self._accounts.discard(account)
        self._serve()

    def resize(self, total: int) -> None:
        """Changes the whole. What is held stays. Nobody waits for more than there ever will be."""
        self.total = total
        for each in self._answers:
            each.least = min(each.least, self.largest)
        for account in self._accounts:
            for each in account.calls:
                each.least = min(each.least, self.largest)
        self._serve()

    def hold(self, account: Account, held: int, *, starving: bool = False) -> None:
        """Says what an account holds now, and whether that can be settled before its calls bring more."""
        account.starving = starving
        change = held - account.held
        self._use(account, held=change)
        if change < 0 and self.waiting:
            self._serve()

    def want(
        self,
        account: Account,
        *,
        least: int,
        most: int,
        now: Monotonic,
        answer: bool = False,
        patience: Patience = UNTIL_IDLE,
    ) -> Want:
        """Wants room for a call; it is granted at once if there is some and nobody waits. `answer`: the answer is coming already."""
        least = min(least, self.largest)
        wanted = Want(account, least, max(least, most), now, answer, patience)
        if not self._calls and not self._answers and (free := self.free) >= least:
            wanted.granted = max(least, min(most, free))
            self._use(account, reserved=wanted.granted)
            return wanted
        if answer:
            self._answers[wanted] = None
        else:
            account.calls[wanted] = None
            self._calls += 1
            self._queue(account)
        self._serve()
        return wanted

    def exchange(self, want: Want, size: int, *, now: Monotonic, patience: Patience = UNTIL_IDLE) -> Want:
        """Gives back a call's room, and wants as much as its answer really needs."""
        self.give_back(want, serve=False)
        return self.want(want.account, least=size, most=size, now=now, answer=True, patience=patience)

    def pressing_at(self, want: Want) -> Monotonic:
        """When a want that still waits is granted its least whatever is used. Infinite for a call of who uses more than its part."""
        account = want.account
        if account.used > self.part and not want.answer and not account.starving:
            return Monotonic(inf)
        patience_s = want.patience.holding_s if account.used else want.patience.idle_s
        last = account.let_in if want.answer else account.pressed
        since = want.since if last is None else max(want.since, last)
        return Monotonic(since + patience_s)

    def press(self, want: Want, *, now: Monotonic) -> bool:
        """Grants a want its least if it has waited for long, to a call no more than a unit. Returns whether it is granted now."""
        if want.granted is None and now >= self.pressing_at(want):
            want.account.pressed = now
            if want.answer:
                want.account.let_in = now
            self._leave(want)
            self._grant(want, want.bare)
        return want.granted is not None

    def give_back(self, want: Want, *, keep: int = 0, serve: bool = True) -> None:
        """Ends a call, or a wait for room. Its account keeps its turn. A call that keeps some bytes goes on with these."""
        if want.granted is None:
            self._leave(want, served=False)
        elif want.granted > keep:
            self._use(want.account, reserved=keep - want.granted)
        want.granted = min(want.granted or 0, keep)
        if serve:
            self._serve()

    def newly_granted(self) -> list[Want]:
        """Those that waited, and were granted room since the last call."""
        if not self._granted:
            return []
        granted, self._granted = self._granted, []
        return granted

    @property
    def _kept(self) -> int:
        return min(len(self._accounts) * UNIT_BYTES, self.total // UNITS_PART)

    def _serve(self) -> None:
        """Grants room to those who wait, in turn, as far as there is some."""
        while (want := self._next()) is not None:
            free = self.free
            if free >= want.least:
                part = free // self.waiting
                granted = max(want.least, min(want.most, part))
            elif not want.account.used and want.bare <= self.total - self.used:
                granted = want.bare
            else:
                return
            self._leave(want)
            self._grant(want, granted)

    def _next(self) -> Want | None:
        """Whose turn it is: the first call of the first account, if no answer waits."""
        if self._answers:
            return next(iter(self._answers))
        if self._idle:
            return next(iter(next(iter(self._idle)).calls))
        free, part = self.free, self.part
        for account in self._busy if free > 0 else ():
            want = next(iter(account.calls))
            if want.least <= free or account.used <= part:
                return want
        return None

    def _leave(self, want: Want, *, served: bool = True) -> None:
        """A want does not wait any more. The turn of its account is over if it was served."""
        if want.answer:
            del self._answers[want]
            return
        account = want.account
        del account.calls[want]
        self._calls -= 1
        if served or not account.calls:
            self._unqueue(account)
            self._queue(account)

    def _grant(self, want: Want, size: int) -> None:
        want.granted = size
        self._use(want.account, reserved=size)
        self._granted.append(want)

    def _use(self, account: Account, *, held: int = 0, reserved: int = 0) -> None:
        """Changes what an account uses. Its calls wait among those of other accounts then, if that begins or ends."""
        before = account.used
        account.held += held
        account.reserved += reserved
        self.used += held + reserved
        if bool(before) != bool(account.used):
            self._unqueue(account)
            self._queue(account)

    def _queue(self, account: Account) -> None:
        """Puts an account last in its queue if it has calls that wait; it stays where it is if it is there."""
        if account.calls:
            queue = self._busy if account.used else self._idle
            queue[account] = None

    def _unqueue(self, account: Account) -> None:
        self._idle.pop(account, None)
        self._busy.pop(account, None)
