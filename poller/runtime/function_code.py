"""Owns the reload of functions' code: lets an invoker take changes up, and reports them."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from poller.domain.status import CodeStatus
from poller.domain.telemetry.daemon_events import CodeReloaded
from poller.domain.telemetry.observers import Observer
from poller.ports import Invoker, ReloadsCode
from poller.rules.responses import cut

RESTORED = "the files hold the running code again"


class FunctionCode:
    """The code of one function, whose invoker may take changes of it up."""

    def __init__(self, function: str, invoker: Invoker, observer: Observer) -> None:
        self._function = function
        self._invoker = invoker if isinstance(invoker, ReloadsCode) else None
        self._observer = observer
        self._before = 0

    @property
    def status(self) -> CodeStatus | None:
        """What runs; None if changes are not taken up."""
        if self._invoker is None:
            return None
        code = self._invoker.code
        return replace(code, refused=cut(code.refused)) if code.refused else code

    def notes(self) -> Iterator[str]:
        """A note for people if a change was refused."""
        code = self.status
        if code is not None and code.refused:
            yield f"function {self._function}: its changed code is refused, the code from before runs on: {code.refused}"

    async def follow(self) -> None:
        """Lets changes be taken up until it is cancelled."""
        if self._invoker is None:
            await asyncio.Event().wait()
        else:
            await self._invoker.follow_code(self._changed)

    def _changed(self) -> None:
        code = self.status
        assert code is not None, "only an invoker that takes changes up reports them"
        same, self._before = code.taken_up == self._before, code.taken_up
        reason = code.refused or (RESTORED if same else "")
        self._observer.on(
            CodeReloaded(function=self._function, ok=not code.refused, version=code.taken_up, reason=reason)
        )
