"""Owns how one worker keeps to its share of a function's rate.

A limit is kept with a *balance*. A pacer of real time lets one purchase pass after the other; each adds some units to the balance
(calls, or records), and as many units as the worker's share allows in the time between two purchases. A call may begin when each
balance is above zero. It takes one call and its records off; a batch that is larger than the balance makes it negative, and is
paid for by the purchases after it.

A call takes its units before it waits for a slot or for messages, so that nothing is received that would then wait for the rate.
Such calls are *ahead* until they start. They bring at most AHEAD_S seconds of the rate, or a single call: a worker whose calls all
start at one moment is at most that much too fast. What did not start is put back.
"""

from dataclasses import dataclass, field

from poller.domain.policies import RatePolicy

QUANTUM_S = 0.1
"""One purchase is for so many seconds of the rate, and for one unit at least."""
AHEAD_S = 1.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A call may be issued."""


@dataclass(frozen=True, slots=True)
class Buy:
    """`units` of a limit are needed, and may be bought `period_s` seconds after the last purchase of it."""

    limit: str
    units: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Withhold:
    """Nothing may be issued now: this worker has no share, or enough calls are ahead."""


type RateStep = Ready | Buy | Withhold


@dataclass(slots=True)
class _Limit:
    """One limit: its rate over all workers, its balance, and the units of the calls that are ahead."""

    per_s: float
    balance: float = 0.0
    ahead: float = 0.0

    def quantum(self, share: float) -> float:
        return max(1.0, self.per_s * share * QUANTUM_S)


@dataclass(slots=True)
class RateBalance:
    """The balances of one function in one worker. `share` is this worker's share of the rate, 0 to 1.

    The runtime asks `step`. For Buy it waits and calls `bought`. When the step is Ready it calls `issue`, and later exactly one
    of `started` and `returned` for that call.
    """

    policy: RatePolicy
    _calls: int = 0
    """The calls that are ahead."""
    _limits: dict[str, _Limit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {"invocations": self.policy.invocations_per_s, "records": self.policy.records_per_s}
        self._limits = {name: _Limit(per_s) for name, per_s in given.items() if per_s is not None}

    def step(self, records: int, share: float) -> RateStep:
        """What has to happen before a call of so many records is issued."""
        if share <= 0.0:
            return Withhold()
        for name, limit in self._limits.items():
            room = limit.per_s * share * AHEAD_S
            if self._calls and limit.ahead + _units(name, records) > room:
                return Withhold()
        for name, limit in self._limits.items():
            if limit.balance <= 0.0:
                quantum = limit.quantum(share)
                return Buy(name, quantum, quantum / (limit.per_s * share))
        return Ready()

    def roomy(self, share: float) -> bool:
        """Whether a call may be ahead for long: at most half of the room for such calls is taken."""
        room = (each.per_s * share * AHEAD_S / 2 for each in self._limits.values())
        return all(each.ahead <= most for each, most in zip(self._limits.values(), room, strict=True))

    def bought(self, purchase: Buy) -> None:
        """The purchase has passed."""
        self._limits[purchase.limit].balance += purchase.units

    def issue(self, records: int) -> None:
        """A call of so many records, at most, is issued, and is ahead from now on."""
        self._calls += 1
        for name, limit in self._limits.items():
            limit.balance -= _units(name, records)
            limit.ahead += _units(name, records)

    def started(self, issued: int, records: int, share: float) -> None:
        """A call that was issued for `issued` records has started with so many."""
        self._leave(issued)
        self._put_back("records", issued - records, share)

    def returned(self, issued: int, share: float) -> None:
        """A call that was issued for so many records did not start."""
        self._leave(issued)
        self._put_back("invocations", 1, share)
        self._put_back("records", issued, share)

    def _leave(self, issued: int) -> None:
        assert self._calls > 0, "a call that was never issued"
        self._calls -= 1
        for name, limit in self._limits.items():
            limit.ahead -= _units(name, issued)

    def _put_back(self, name: str, units: int, share: float) -> None:
        """Adds what was not used. A balance does not grow beyond one purchase by it, so that an idle time saves nothing up."""
        limit = self._limits.get(name)
        if limit is not None:
            most = max(limit.balance, limit.quantum(share))
            limit.balance = min(limit.balance + units, most)


def _units(limit: str, records: int) -> int:
    return records if limit == "records" else 1
