"""Owns how `poller breaker close` says what it will do, asks whether it is meant, asks a daemon, and what it prints."""

import http.client
import json
import urllib.error
import urllib.request
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from poller.commands.bearer_token import GIVE_ONE
from poller.commands.operations.command import NOT_DONE, Manner, Surroundings, agreed
from poller.commands.operations.daemon_api import NotAccepted
from poller.commands.shared import FAILED, print_problems, url_problem
from poller.commands.status import Unanswered, decode, fetch
from poller.domain.status import DaemonStatus, FunctionStatus
from poller.domain.telemetry.labels import BreakerState
from poller.domain.untrusted.texts import line_of

ANSWER_BYTES_MAX = 1024 * 1024
ANSWER_S = 10.0
MESSAGE_CHARS_MAX = 1000


class _Refused(msgspec.Struct):
    message: str = ""


def close(url: str, function: str, *, token: str, manner: Manner, around: Surroundings | None = None) -> int:
    """Closes the breaker and says so, unless it is a dry run or not meant; returns the exit status."""
    try:
        if manner.dry_run or not manner.yes:
            said = _sentence(decode(fetch(url, token)), function)
            if manner.dry_run:
                _show_plan(function, said, manner)
                return 0
            if not agreed(said, around or Surroundings()):
                return NOT_DONE
    except (Unanswered, NotAccepted) as error:
        print_problems([str(error)])
        return FAILED
    return _close(url, function, manner, token)


def _sentence(status: DaemonStatus, function: str) -> str:
    """What the command will do, with the workers where the breaker is not closed as far as that is known."""
    name = line_of(function, chars_max=MESSAGE_CHARS_MAX)
    breakers = [at for each in status.functions if each.function == function for at in each.breakers]
    odd = [
        line_of(at.worker, chars_max=MESSAGE_CHARS_MAX)
        for at in breakers
        if at.breaker.state != BreakerState.CLOSED
    ]
    where = f"it is open at {', '.join(odd)}" if odd else "it is not known to be open at any worker"
    return f"close the circuit breaker of function {name} at all workers, so that its calls begin at once; {where}"


def _show_plan(function: str, said: str, manner: Manner) -> None:
    if manner.as_json:
        print(json.dumps({"function": function, "request": {"reason": manner.reason}, "sentence": said}))
    else:
        print(f"would do: {said}")


def _close(url: str, function: str, manner: Manner, token: str) -> int:
    problem, body = url_problem(url), b""
    if not problem:
        problem, body = _post(
            f"{url.rstrip('/')}/v1/functions/{quote(function, safe='')}/breaker/close", manner.reason, token
        )
    state: FunctionStatus | None = None
    if not problem:
        try:
            state = msgspec.json.decode(body, type=FunctionStatus)
        except msgspec.MsgspecError as error:
            problem = f"{url}: the answer is no state of a function: {error}; is the daemon of this version?"
    if state is None:
        print_problems([problem or ""])
        return FAILED
    print(body.decode() if manner.as_json else _said(state))
    return 0


def _said(state: FunctionStatus) -> str:
    name = line_of(state.function, chars_max=MESSAGE_CHARS_MAX)
    here = "closed here" if state.breaker is not None else "not in use at this worker"
    return f"function {name}: breaker {here}; the other workers of the store close theirs within seconds"


def _post(address: str, reason: str, token: str) -> tuple[str, bytes]:
    """What is wrong (empty if nothing is), and the body of the answer."""
    request = urllib.request.Request(
        address,
        data=json.dumps({"reason": reason}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    if token:
        # Where the answer leads elsewhere, the token stays here.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            body: bytes = answer.read(ANSWER_BYTES_MAX + 1)
    except urllib.error.HTTPError as error:
        with error:
            return f"{address}: answered status {error.code}: {_message(error)}; {_remedy(error.code)}", b""
    except http.client.HTTPException as error:
        return (
            f"{address}: the answer is no HTTP: {type(error).__name__}; does a daemon listen there?",
            b"",
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        return f"{address}: no answer: {why}; is the daemon running, and --url its address?", b""
    if len(body) > ANSWER_BYTES_MAX:
        return (
            f"{address}: answered more than {ANSWER_BYTES_MAX} bytes; does a daemon listen there?",
            b"",
        )
    return "", body


def _message(error: urllib.error.HTTPError) -> str:
    try:
        found = msgspec.json.decode(error.read(ANSWER_BYTES_MAX), type=_Refused).message
    except (msgspec.MsgspecError, OSError, http.client.HTTPException):
        found = ""
    return line_of(found, chars_max=MESSAGE_CHARS_MAX) or "it does not say why"


def _remedy(code: int) -> str:
    match code:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return f"closing a breaker needs the role operate; {GIVE_ONE}"
        case HTTPStatus.NOT_FOUND:
            return "name a function that has a breaker; poller status lists them"
        case _:
            return "does a daemon of this version listen there?"
