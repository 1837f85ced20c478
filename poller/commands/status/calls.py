"""Owns how the asynchronous calls that wait for a function look in the status, and the commands that free them."""

from poller.commands.fitting import Mark, ScreenPage
from poller.commands.operations.shell import command_line
from poller.commands.status.times import span
from poller.domain.functions.waiting_calls import CallsStatus
from poller.domain.records import Epoch
from poller.domain.wording.numbers_of import inflected, number_of


def add_calls(page: ScreenPage, calls: CallsStatus, now: Epoch, more: str) -> None:
    """Adds the calls of one function; where one has failed also why, and the commands that try it now or give it up.

    `more` is added to each command, such as the address of the daemon.
    """
    facts = [f"{calls.waiting} {inflected(calls.waiting, 'waits', 'wait')}"] if calls.waiting else []
    facts += [f"{calls.running} {inflected(calls.running, 'runs', 'run')}"] if calls.running else []
    if calls.undelivered:
        facts.append(
            f"{calls.undelivered} {inflected(calls.undelivered, 'is', 'are')} over and not delivered"
        )
    of = f" (of the first {calls.seen})" if 0 < calls.seen < calls.calls else ""
    counted = f": {', '.join(facts)}{of}" if facts else ""
    oldest = span(max(0.0, now - calls.oldest))
    page.add(
        f"function {calls.function}: {number_of(calls.calls, 'asynchronous call')}{counted}; the oldest for {oldest}",
        lines_max=3,
        mark=Mark.TROUBLE if calls.last_error else Mark.NONE,
    )
    if not calls.last_error:
        return
    page.add(calls.last_error, depth=1, lines_max=3)
    for words in (["retry"], ["skip", "--id", calls.first]):
        name = ["--", calls.function] if calls.function.startswith("-") else [calls.function]
        page.command(command_line(["poller", "calls", *words, *name], more), depth=1)
