"""Owns how commands ask a daemon over HTTP, and what they say when it refuses, or when no daemon answers."""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import typer

from poller.commands.bearer_token import GIVE_ONE, bearer_token
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.shared import url_problem
from poller.domain.errors import InvalidConfiguration
from poller.domain.untrusted.texts import line_of

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ANSWER_S = 15.0
"""A daemon answers within ten seconds."""
MESSAGE_BYTES_MAX = 64 * 1024
MESSAGE_CHARS_MAX = 4096
NO_DAEMON = "does a daemon of this version listen there?"


class Unanswered(Exception):
    """A daemon refused, or gave no answer that is of use. The text says why and what to do."""


class RequestRefused(Unanswered):
    """The daemon answered that it does not do it. `message` is what it says of it, in one line, and may be empty."""

    def __init__(self, text: str, *, status: int, message: str) -> None:
        super().__init__(text)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class DaemonClient:
    """Asks the daemon at `url`. `token` is sent as a bearer token unless it is empty. `token_file` says where it is from, if it is from a file."""

    url: str
    token: str = ""
    token_file: Path | None = None

    def get(self, path: str) -> bytes:
        """The body of the answer to a read; raises Unanswered."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None, *, tries: int = 1) -> bytes:
        """The body of the answer; raises Unanswered. Where there is no answer, the request is sent `tries` times."""
        if problem := url_problem(self.url):
            raise Unanswered(problem)
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url.rstrip("/") + path, body, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            # Where the answer leads elsewhere, the token stays here.
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        for _ in range(tries - 1):
            try:
                return self._answer(request)
            except RequestRefused:
                raise
            except Unanswered:
                pass
        return self._answer(request)

    def _answer(self, request: urllib.request.Request) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                body: bytes = answer.read(ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except http.client.HTTPException as error:
            raise Unanswered(
                f"{self.url}: the answer is no HTTP: {type(error).__name__}; {NO_DAEMON}"
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Unanswered(
                f"{self.url}: no answer: {reason}; is the daemon running, and --url its address?"
            ) from None
        if len(body) > ANSWER_BYTES_MAX:
            raise Unanswered(f"{self.url}: answered more than {ANSWER_BYTES_MAX} bytes; {NO_DAEMON}")
        return body

    def _refused(self, error: urllib.error.HTTPError) -> RequestRefused:
        message = _message(error)
        if error.code == HTTPStatus.UNAUTHORIZED:
            why = "does not know the token that was sent" if self.token else "needs a token"
            text = f"the daemon {why}; {GIVE_ONE}"
        else:
            text = message or f"{self.url}: answered status {error.code}; {NO_DAEMON}"
        return RequestRefused(text, status=error.code, message=message)


def client_or_exit(url: str, token_file: Path | None) -> DaemonClient:
    """A client with the token of the file or of the environment. If that is no token, it is printed why, and the command ends."""
    try:
        return DaemonClient(url, bearer_token(token_file), token_file)
    except InvalidConfiguration as error:
        print_problems(error.problems)
        raise typer.Exit(FAILED) from None


def decoded[T](body: bytes, kind: type[T], what: str) -> T:
    """The value in a body; raises Unanswered. Members that this version does not know are ignored."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unanswered(f"the answer is no {what}: {error}; is the daemon of this version?") from None


def quoted(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="", errors="replace")


def _message(error: urllib.error.HTTPError) -> str:
    """What the daemon says of a refusal, in one line; empty if it is none of a daemon."""
    try:
        found = json.loads(error.read(MESSAGE_BYTES_MAX))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return ""
    text = found.get("message") if isinstance(found, dict) else None
    return line_of(text, chars_max=MESSAGE_CHARS_MAX) if isinstance(text, str) else ""
