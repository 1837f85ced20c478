"""Owns the state of one function process in Lambda's Runtime API: the invocation that it may take, the one that it has taken, and how
it ended.

It ends with the process, so a late request of an earlier process can never answer an invocation of a later one.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.invokers.outcomes import WHOLE_ERROR_HEADER, failed
from poller.domain.invocations import FunctionError, Invocation, Outcome

EXIT_ERROR = "Runtime.ExitError"


@dataclass(frozen=True, slots=True)
class Offer:
    """An invocation that a process may take, and its deadline."""

    invocation: Invocation
    deadline_ms: int

    @property
    def headers(self) -> dict[str, str]:
        """What the process is told beside the event."""
        invocation = self.invocation
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(self.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.function_arn,
        }
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context_json
        if invocation.whole_error:
            headers[WHOLE_ERROR_HEADER] = "true"
        if invocation.trace_header:
            headers["Lambda-Runtime-Trace-Id"] = invocation.trace_header
        return headers


class ProcessSession:
    """The state of one process in the Runtime API. Its futures belong to the running loop."""

    def __init__(self) -> None:
        self.ready: asyncio.Future[FunctionError | None] = asyncio.get_running_loop().create_future()
        """Resolved with None when the process asks for its first invocation, or with the error if it cannot start."""
        self.taken: str | None = None
        """The request id of the invocation that the process works on."""
        self.offered: Offer | None = None
        """The invocation that the process may take."""
        self._wakes: list[Callable[[], object]] = []
        self._answer: asyncio.Future[Outcome | None] | None = None

    async def ask(self, offer: Offer) -> Outcome | None:
        """Offers an invocation and waits for its outcome, one at a time; None if the process ended before it took the invocation."""
        assert self.offered is None, "one invocation at a time"
        assert self.taken is None, "one invocation at a time"
        self._answer = asyncio.get_running_loop().create_future()
        self.offered = offer
        for wake in tuple(self._wakes):
            wake()
        return await self._answer

    async def take(self) -> Offer | None:
        """Waits for the next invocation and returns it; returns None if the last one has no answer yet."""
        if self.taken is not None:
            return None
        self.is_ready()
        while (offer := self.collect()) is None:
            offered = asyncio.Event()
            with self.waking(offered.set):
                await offered.wait()
        return offer

    def is_ready(self) -> None:
        """Records that the process asks for an invocation."""
        if not self.ready.done():
            self.ready.set_result(None)

    def collect(self) -> Offer | None:
        """Takes the invocation that is offered, if there is one."""
        offer, self.offered = self.offered, None
        if offer is not None:
            self.taken = offer.invocation.request_id
        return offer

    def wake(self, call: Callable[[], object]) -> None:
        """Has `call` called when an invocation is offered, until `let` is called."""
        self._wakes.append(call)

    def let(self, call: Callable[[], object]) -> None:
        """Ends `wake`."""
        self._wakes.remove(call)

    @contextmanager
    def waking(self, call: Callable[[], object]) -> Iterator[None]:
        """Has `call` called inside the block when an invocation is offered."""
        self.wake(call)
        try:
            yield
        finally:
            self.let(call)

    def settle(self, request_id: str, outcome: Outcome) -> bool:
        """Accepts an outcome; returns False if no invocation with this id waits for one."""
        if self.taken != request_id:
            return False
        self.taken = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(outcome)
        return True

    @property
    def waiting(self) -> bool:
        """Whether an invocation was offered that has no outcome yet."""
        return self.taken is not None or self.offered is not None

    def ended(self, status: int) -> None:
        """Records that the process has ended; `status` is negative if a signal ended it."""
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        error = failed(EXIT_ERROR, f"Runtime exited without providing a reason: {how}")
        self.refuse(error)
        if self._answer is None or self._answer.done():
            return
        self._answer.set_result(error if self.taken else None)

    def refuse(self, error: FunctionError) -> None:
        """Records that the process cannot start."""
        if not self.ready.done():
            self.ready.set_result(error)
