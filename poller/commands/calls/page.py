"""Owns how asynchronous calls of a function look on a screen. Payloads are cut to some lines; `--json` shows them whole."""

from poller.commands.fitting import Mark, Screen, ScreenPage
from poller.commands.status.times import moment
from poller.domain.functions.waiting_calls import CallPage, CallState, WaitingCall
from poller.domain.wording.numbers_of import number_of

PAYLOAD_LINES_MAX = 6
ERROR_LINES_MAX = 3


def calls_page(found: CallPage, screen: Screen | int) -> ScreenPage:
    """The page for an answer."""
    page = ScreenPage(screen)
    if not found.calls:
        page.add(f"function {found.function}: no asynchronous calls to show")
    for call in found.calls:
        _call(page, call)
    if found.next is not None:
        page.add(f"there may be more: --marker {found.next}", lines_max=3)
    return page


def _call(page: ScreenPage, call: WaitingCall) -> None:
    page.identifier(f"call {call.id}", mark=Mark.TROUBLE if call.last_error else Mark.NONE)
    facts = [
        call.state.value + (f" ({call.end})" if call.end else ""),
        f"accepted {moment(call.accepted)}",
        number_of(call.attempts, "attempt"),
    ]
    if call.owner:
        facts.append(f"at {call.owner}")
    else:
        facts.append(f"due {moment(call.due)}")
    if call.state is CallState.UNDELIVERED:
        facts.append(f"missing at {number_of(call.undelivered, 'destination')}")
    page.add(", ".join(facts), depth=1)
    if call.last_error:
        page.add(call.last_error, depth=1, lines_max=ERROR_LINES_MAX)
    if call.payload is not None:
        page.add(f"payload {call.payload.text}", depth=1, lines_max=PAYLOAD_LINES_MAX)
