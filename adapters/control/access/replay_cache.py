"""Owns the memory of used signatures, so that an attacker cannot repeat a request that he recorded.

A signature has a date of whole seconds, and SDKs do not sign the id of a call. So two equal calls within one second have the
same signature, and so has a retry. SDKs also send the id of a call and the number of the attempt. By these the cache tells
another call or attempt from a replay. It does so only shortly after the first use: later the date, and so the signature,
would be different.
"""

from dataclasses import dataclass, field

from adapters.control.access.sigv4 import SKEW_S, Proof
from poller.domain.records import Epoch

SIGNATURES_MAX = 10_000
"""Used signatures that are remembered, each for ten minutes at most."""
EQUAL_S = 2.0
"""How long after the first use of a signature another call with the same one is accepted."""
EQUALS_MAX = 16
"""Calls that are accepted with one signature."""


class Full(Exception):
    """The cache is full of signatures that are still valid, so that no other one can be accepted."""


@dataclass(slots=True)
class _Used:
    first: Epoch
    ends: float
    calls: set[str] = field(default_factory=set)


class ReplayCache:
    """The used signatures that are still valid."""

    def __init__(self, *, signatures_max: int = SIGNATURES_MAX) -> None:
        self._used: dict[str, _Used] = {}
        self._signatures_max = signatures_max

    def admit(self, proof: Proof, call: str, *, now: Epoch) -> bool:
        """Returns True and remembers the use if it is no replay. `call` is empty if the client gave none. Raises Full."""
        self._forget_old(now)
        used = self._used.get(proof.signature)
        if used is None:
            self._make_room(now)
            self._used[proof.signature] = _Used(now, proof.at + SKEW_S, {call})
            return True
        if not call or call in used.calls or now - used.first > EQUAL_S or len(used.calls) >= EQUALS_MAX:
            return False
        used.calls.add(call)
        return True

    def __len__(self) -> int:
        return len(self._used)

    def _forget_old(self, now: Epoch) -> None:
        """Removes the oldest signatures up to the first one that is still valid."""
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest].ends >= now:
                return
            del self._used[oldest]

    def _make_room(self, now: Epoch) -> None:
        if len(self._used) < self._signatures_max:
            return
        self._used = {name: used for name, used in self._used.items() if used.ends >= now}
        if len(self._used) >= self._signatures_max:
            raise Full
