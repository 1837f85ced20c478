"""Owns what `poller calls` does: it lists calls, or says what it will do to them, asks whether it is meant, asks a daemon, and waits."""

import json
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from poller.commands.calls.page import calls_page
from poller.commands.daemon_client import DaemonClient, RequestRefused, Unanswered, decoded, quoted
from poller.commands.fitting import print_lines, show
from poller.commands.operations.command import (
    NOT_DONE,
    TEXT_CHARS_MAX,
    Manner,
    NobodyToAsk,
    Surroundings,
    agreed,
    wait_until_over,
)
from poller.commands.operations.daemon_api import OPERATION, TRIES_MAX, DaemonApi
from poller.commands.operations.option_names import in_options
from poller.commands.operations.progress import plan
from poller.commands.root.problems import FAILED, print_problems
from poller.domain.functions.waiting_calls import CallPage
from poller.domain.operations import Action, OperationState, OperationView
from poller.domain.untrusted.rendering import as_json as rendered
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of

NAMED_MAX = 5
"""Ids that the sentence names."""
NAME_CHARS_MAX = 200


def show_calls(
    daemon: DaemonClient,
    function: str,
    *,
    state: str | None,
    limit: int,
    marker: str | None,
    as_json: bool,
) -> int:
    """Prints a page of calls; returns the exit status."""
    given = {"state": state, "limit": limit, "marker": marker}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    try:
        body = daemon.get(f"/v1/functions/{quoted(function)}/calls?{query}")
        found = decoded(body, CallPage, "list of calls")
    except RequestRefused as error:
        print_problems([in_options(error.message) if _about_request(error) else str(error)])
        return FAILED
    except Unanswered as error:
        print_problems([str(error)])
        return FAILED
    if as_json:
        print(body.decode())
    else:
        show(lambda screen: calls_page(found, screen))
    return 0


def operate_on_calls(
    api: DaemonApi,
    action: Action,
    function: str,
    members: Mapping[str, Any],
    *,
    manner: Manner,
    around: Surroundings | None = None,
) -> int:
    """Carries out one command; returns its exit status."""
    around = around or Surroundings()
    request = {"action": action.value, "id": str(uuid.uuid4()), **members}
    request |= {"reason": manner.reason} if manner.reason else {}
    said = sentence(action, function, members)
    planned = manner.dry_run and action is Action.REDRIVE
    try:
        if planned:
            # The plan of a redrive is in the queue, which the daemon reads.
            request["dry_run"] = True
        elif manner.dry_run:
            _show_plan(function, request, said, manner)
            return 0
        if not manner.yes and not planned and not agreed(said, around):
            return NOT_DONE
        path = f"/v1/functions/{quoted(function)}/operations"
        body = api.client.ask("POST", path, request, tries=TRIES_MAX)
        operation = decoded(body, OperationView, OPERATION)
        if manner.wait:
            operation = wait_until_over(api, operation, manner, around)
    except (Unanswered, NobodyToAsk) as error:
        print_problems([in_options(str(error))])
        return FAILED
    return _end(operation, manner)


def sentence(action: Action, function: str, members: Mapping[str, Any]) -> str:
    """What a command will do, in one sentence."""
    name = line_of(function, chars_max=NAME_CHARS_MAX)
    if action is Action.REDRIVE:
        limit = f"{number_of(members['limit'], 'call')} at most" if "limit" in members else "all failed calls"
        place = line_of(members["from"], chars_max=TEXT_CHARS_MAX)
        return (
            f"make {limit} of function {name} anew from {place}, and remove each message whose call is stored"
        )
    calls = members["calls"]
    which = "all asynchronous calls of function" if isinstance(calls, str) else _named(calls)
    if action is Action.RETRY:
        return f"try {which} {name} now, and deliver now what is over; no attempt is used up"
    if members.get("discard"):
        return f"drop {which} {name}: nobody gets a document of them"
    return f"skip {which} {name}: they are not made again, and their on-failure destination or dead-letter queue gets them"


def _named(calls: list[str]) -> str:
    shown = ", ".join(line_of(each, chars_max=NAME_CHARS_MAX) for each in calls[:NAMED_MAX])
    more = f" and {len(calls) - NAMED_MAX} more" if len(calls) > NAMED_MAX else ""
    return f"{number_of(len(calls), 'asynchronous call')} ({shown}{more}) of function"


def _about_request(error: RequestRefused) -> bool:
    """Whether the daemon says what is wrong with the request itself."""
    return bool(error.message) and error.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}


def _show_plan(function: str, request: dict[str, Any], said: str, manner: Manner) -> None:
    if manner.as_json:
        shown = {name: value for name, value in request.items() if name != "id"}
        print(json.dumps({"function": function, "request": shown, "sentence": said}))
    else:
        print_lines([f"would do: {said}"])


def _end(operation: OperationView, manner: Manner) -> int:
    """Prints what came of the operation; returns the exit status."""
    if manner.as_json:
        print(rendered(operation).decode())
    elif lines := plan(operation):
        print_lines(lines)
    else:
        print_lines([line_of(_said(operation), chars_max=TEXT_CHARS_MAX)])
    if operation.state in {OperationState.FAILED, OperationState.CANCELLED}:
        return NOT_DONE
    return NOT_DONE if manner.wait and not operation.state.over else 0


def _said(operation: OperationView) -> str:
    if operation.result:
        return f"{operation.action} {operation.state}: {in_options(operation.result)}"
    return (
        f"{operation.action} {operation.state}: it is not over yet; poller operations show {operation.id} says what it waits for, "
        f"poller operations cancel {operation.id} ends it"
    )
