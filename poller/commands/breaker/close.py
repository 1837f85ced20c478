"""Owns how `poller breaker close` asks a daemon, and what it prints."""

import http.client
import json
import urllib.error
import urllib.request
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from poller.commands.bearer_token import GIVE_ONE
from poller.commands.shared import FAILED, print_problems, url_problem
from poller.domain.status import FunctionStatus
from poller.domain.untrusted.texts import line_of

ANSWER_BYTES_MAX = 1024 * 1024
ANSWER_S = 10.0
MESSAGE_CHARS_MAX = 1000


class _Refused(msgspec.Struct):
    message: str = ""


def close(url: str, function: str, reason: str, *, token: str, as_json: bool) -> int:
    """Closes the breaker and says so; returns the exit status."""
    problem, body = url_problem(url), b""
    if not problem:
        problem, body = _post(
            f"{url.rstrip('/')}/v1/functions/{quote(function, safe='')}/breaker/close", reason, token
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
    print(body.decode() if as_json else _said(state))
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
