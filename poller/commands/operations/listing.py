"""Owns `poller operations`: lists operations, shows one, and cancels one."""

from collections.abc import Callable

from poller.commands.daemon_client import Unanswered
from poller.commands.fitting import Screen, ScreenPage, show
from poller.commands.operations.daemon_api import DaemonApi
from poller.commands.operations.naming import named
from poller.commands.operations.option_names import in_options
from poller.commands.operations.progress import missing, waits
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.status.times import moment, span
from poller.domain.arns import Arn
from poller.domain.operations import (
    Action,
    OperationPage,
    OperationState,
    OperationView,
    PartResult,
    function_of,
)
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingState
from poller.domain.status import DaemonStatus, MappingStatus
from poller.domain.untrusted.rendering import as_json as rendered
from poller.domain.wording.numbers_of import number_of
from poller.rules.operations.pauses import described
from poller.rules.target_names import UnknownTarget, find_mapping

PARTS_SHOWN_MAX = 50
RECORDS_SHOWN_MAX = 20
WAITS_SHOWN_MAX = 20


def list_operations(
    api: DaemonApi, *, mapping: str | None, state: OperationState | None, limit: int, as_json: bool
) -> int:
    """Prints operations, newest first; returns the exit status."""

    def made() -> None:
        status = api.status()
        identity = _identity(mapping, status) if mapping is not None else None
        page = api.operations(mapping=identity, state=state, limit=limit)
        if as_json:
            print(rendered(page).decode())
        else:
            show(lambda screen: _list_page(page, status, screen))

    return _answered(made)


def show_operation(api: DaemonApi, operation: str, *, as_json: bool) -> int:
    """Prints one operation; returns the exit status."""

    def made() -> None:
        _print(api.operation(operation), api, as_json=as_json)

    return _answered(made)


def cancel_operation(api: DaemonApi, operation: str, *, as_json: bool) -> int:
    """Cancels an operation, and prints it; returns the exit status."""

    def made() -> None:
        _print(api.cancel(operation), api, as_json=as_json)

    return _answered(made)


def _answered(made: Callable[[], None]) -> int:
    try:
        made()
    except (Unanswered, UnknownTarget) as error:
        print_problems([str(error)])
        return FAILED
    return 0


def _identity(text: str, status: DaemonStatus) -> MappingId:
    if function_of(MappingId(text)) is not None:
        return MappingId(text)
    return find_mapping(text, [named(each) for each in status.mappings]).mapping


def _print(operation: OperationView, api: DaemonApi, *, as_json: bool) -> None:
    if as_json:
        print(rendered(operation).decode())
        return
    status = api.status()
    show(lambda screen: _page(operation, status, screen))


def _list_page(found: OperationPage, status: DaemonStatus, screen: Screen | int) -> ScreenPage:
    page = ScreenPage(screen)
    if not found.operations:
        page.add("no operations")
    for operation in found.operations:
        _add(page, operation, status)
    if found.next is not None:
        page.add("there are older ones; --limit shows more")
    return page


def _page(operation: OperationView, status: DaemonStatus, screen: Screen | int) -> ScreenPage:
    page = ScreenPage(screen)
    _add(page, operation, status)
    for name, value in operation.members.items():
        page.add(f"{name}: {value if isinstance(value, str) else rendered(value).decode()}", depth=1)
    for line in _waits(operation, status)[:WAITS_SHOWN_MAX]:
        page.add(f"waits: {line}", depth=1, lines_max=3)
    for part in operation.wanted[:PARTS_SHOWN_MAX]:
        result = operation.parts.get(part)
        page.add(f"{part} {_said(operation, result, status)}", depth=1, lines_max=3)
    if len(operation.wanted) > PARTS_SHOWN_MAX:
        page.left_out(f"and {number_of(len(operation.wanted) - PARTS_SHOWN_MAX, 'more part')}", depth=1)
    records = operation.notes.get("records", ())
    for record in list(records)[:RECORDS_SHOWN_MAX] if isinstance(records, list | tuple) else ():
        page.line(f"record {record}", depth=1)
    return page


def _in_force(operation: OperationView) -> str:
    """Of a pause that holds: that it does, and on how many parts not yet. It is running until it is resumed."""
    if operation.action is not Action.PAUSE or operation.state is not OperationState.RUNNING:
        return ""
    left = len(missing(operation))
    if operation.wanted and left == len(operation.wanted):
        return ", not yet in force"
    return ", in force" + (
        f", not yet on {number_of(left, 'part', of=len(operation.wanted))}" if left else ""
    )


def _waits(operation: OperationView, status: DaemonStatus) -> list[str]:
    """What an operation waits for. No worker notes that the mapping runs nowhere."""
    mapping = next((each for each in status.mappings if each.mapping == operation.mapping), None)
    stopped = (
        [] if mapping is None or mapping.state is not MappingState.DISABLED else ["the mapping is disabled"]
    )
    return [*([] if operation.state.over or operation.action is Action.PAUSE else stopped), *waits(operation)]


def _said(operation: OperationView, result: PartResult | None, status: DaemonStatus) -> str:
    """What came of a part. Nothing runs, or waits, in an operation that is over."""
    if result is None:
        return _nothing_yet(operation, status)
    if operation.state.over and not result.state.over:
        return "it was begun and not finished"
    return f"{result.state}: {in_options(result.result)}"


def _nothing_yet(operation: OperationView, status: DaemonStatus) -> str:
    """What a part without a result waits for, as far as it is known: any worker settles the messages that a skip means."""
    if operation.state.over:
        return "nothing was done"
    mapping = next((each for each in status.mappings if each.mapping == operation.mapping), None)
    source = Arn.read(mapping.source_arn) if mapping is not None else None
    queue = source is not None and source.service == "sqs"
    if operation.action is Action.SKIP and queue and operation.notes.get("records"):
        return "waits until running calls with its messages end, or the messages are received again"
    return "nothing yet"


def _add(page: ScreenPage, operation: OperationView, status: DaemonStatus) -> None:
    took = "" if operation.ended is None else f", took {span(operation.ended - operation.created)}"
    page.line(f"{operation.id} {operation.state}{_in_force(operation)}")
    mapping = next((each for each in status.mappings if each.mapping == operation.mapping), None)
    function = function_of(operation.mapping)
    of = f"{described(operation.target)} of {_name(operation, mapping)}"
    page.add(f"{operation.action} {of if function is None else f'calls of function {function}'}", depth=1)
    page.add(f"by {operation.by or 'somebody'} at {moment(Epoch(operation.created))}{took}", depth=1)
    if operation.reason:
        page.add(f"because: {operation.reason}", depth=1)
    if operation.result:
        page.add(in_options(operation.result), depth=1, lines_max=3)


def _name(operation: OperationView, mapping: MappingStatus | None) -> str:
    return operation.mapping if mapping is None else f"{mapping.function} ({operation.mapping})"
