"""Owns the memory of used signatures, so that a request that somebody recorded cannot be sent again.

A signature has a date of whole seconds, and the SDKs do not sign the id of a call. Two equal calls within one second
therefore have equal signatures, a retried call too. They are told from a replay by the id and the number of the try that
the SDKs send, for the short time in which a second equal signature can come about at all.
"""

from dataclasses import dataclass, field

from adapters.control.access.sigv4 import SKEW_S, Proof
from poller.domain.records import Epoch

SIGNATURES_MAX = 10_000
"""Used signatures that are remembered; each is for ten minutes at most."""
EQUAL_S = 2.0
"""After its first use, how long an equal signature of another call is taken."""
EQUALS_MAX = 16
"""Calls with one signature."""


class Full(Exception):
    """So many signatures are remembered that no other can be taken without forgetting one that is still good."""


@dataclass(slots=True)
class _Used:
    first: Epoch
    ends: float
    calls: set[str] = field(default_factory=set)


class Replays:
    """The signatures that were used and are not too old yet."""

    def __init__(self, *, signatures_max: int = SIGNATURES_MAX) -> None:
        self._used: dict[str, _Used] = {}
        self._signatures_max = signatures_max

    def admit(self, proof: Proof, call: str, *, now: Epoch) -> bool:
        """Whether this use is not a replay; remembers it then. `call` is empty if the client gave none. Raises Full."""
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
        """Drops from the oldest on, up to the first that is still good."""
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
