"""Owns how commands ask a daemon's API for operations."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from poller.commands.bearer_token import GIVE_ONE
from poller.commands.shared import url_problem
from poller.commands.status import decode, fetch
from poller.domain.operations import OperationPage, OperationView
from poller.domain.status import DaemonStatus
from poller.domain.untrusted.texts import line_of

ANSWER_BYTES_MAX = 16 * 1024 * 1024
ANSWER_S = 15.0
TRIES_MAX = 2
"""A request that got no answer is sent once more. An operation has an id of the command's own, so that it is stored once."""
MESSAGE_CHARS_MAX = 4096


class NotAccepted(Exception):
    """The daemon refused a request, or did not answer it. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class DaemonApi:
    """The API of the daemon at `url`. Each method raises NotAccepted, and `status` Unanswered."""

    url: str
    token: str = ""

    def status(self) -> DaemonStatus:
        """What runs."""
        return decode(fetch(self.url, self.token))

    def submit(self, mapping: str, request: dict[str, Any]) -> OperationView:
        """Asks for an operation."""
        body = self._ask("POST", f"/v1/mappings/{_quoted(mapping)}/operations", request)
        return _decoded(body, OperationView)

    def operation(self, operation: str) -> OperationView:
        """One operation."""
        return _decoded(self._ask("GET", f"/v1/operations/{_quoted(operation)}"), OperationView)

    def cancel(self, operation: str) -> OperationView:
        """Cancels an operation."""
        return _decoded(self._ask("DELETE", f"/v1/operations/{_quoted(operation)}"), OperationView)

    def operations(self, **query: str | int | None) -> OperationPage:
        """A page of operations."""
        given = {name: value for name, value in query.items() if value is not None}
        return _decoded(self._ask("GET", f"/v1/operations?{urllib.parse.urlencode(given)}"), OperationPage)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        if problem := url_problem(self.url):
            raise NotAccepted(problem)
        address = self.url.rstrip("/") + path
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, content, method=method)
        if content is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            # Where the answer leads elsewhere, the token stays here.
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        for tries in range(TRIES_MAX):
            try:
                with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                    found: bytes = answer.read(ANSWER_BYTES_MAX + 1)
            except urllib.error.HTTPError as error:
                with error:
                    raise NotAccepted(_refusal(address, error, self.token)) from None
            except (OSError, ValueError, http.client.HTTPException) as error:
                if tries + 1 < TRIES_MAX:
                    continue
                reason = getattr(error, "reason", error)
                raise NotAccepted(
                    f"{address}: no answer: {reason}; is the daemon running, and --url its address?"
                ) from None
            if len(found) > ANSWER_BYTES_MAX:
                raise NotAccepted(
                    f"{address}: answered more than {ANSWER_BYTES_MAX} bytes; does a daemon listen there?"
                )
            return found
        raise AssertionError("the last try returns or raises")


def _refusal(address: str, error: urllib.error.HTTPError, token: str) -> str:
    try:
        message = json.loads(error.read(ANSWER_BYTES_MAX))["message"]
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        message = None
    if error.code == HTTPStatus.UNAUTHORIZED:
        what = "does not know the token that was sent" if token else "needs a token for operations"
        return f"the daemon {what}; {GIVE_ONE}"
    if not isinstance(message, str):
        return f"{address}: answered status {error.code}; does a daemon of this version listen there?"
    return line_of(message, chars_max=MESSAGE_CHARS_MAX)


def _decoded[T](body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise NotAccepted(f"the answer is no operation: {error}; is the daemon of this version?") from None


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
