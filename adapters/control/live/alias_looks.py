"""Owns the event of aliases: all aliases of all functions with their shifts, as this worker knows them."""

from collections.abc import Sequence

from adapters.control.live.events import event
from poller.domain.functions.alias_control import AliasView
from poller.domain.functions.calls import FunctionCaller
from poller.domain.mapping_api import ApiError

BYTES_PER_S = 250_000
"""How fast aliases are sent to each reader at most, while shares and counts change all the time."""


class AliasLooks:
    """What the last look at the aliases has found. `event` is empty as long as no look has found any."""

    def __init__(self, caller: FunctionCaller | None) -> None:
        self.event = b""
        self._caller = caller
        self._not_before = float("-inf")

    def changed(self, now: float) -> bool:
        """Makes the event if something differs. Returns whether it has to be sent."""
        if self._caller is None or now < self._not_before:
            return False
        try:
            found = _all(self._caller)
        except ApiError:
            # The daemon starts or drains: what is known stays.
            return False
        made = event("aliases", found)
        if made == self.event or not (found or self.event):
            return False
        self.event = made
        self._not_before = now + len(made) / BYTES_PER_S
        return True


def _all(caller: FunctionCaller) -> Sequence[AliasView]:
    control = caller.aliases
    return [view for function in caller.functions() for view in control.aliases(function.name)]
