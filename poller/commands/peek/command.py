"""Owns how `poller peek` asks a daemon, and what it prints when there is no answer."""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlencode

import msgspec

from poller.commands.bearer_token import GIVE_ONE
from poller.commands.fitting import show
from poller.commands.peek.page import records_page
from poller.commands.shared import FAILED, print_problems, url_problem
from poller.domain.peeking.answers import PeekAnswer
from poller.domain.untrusted.texts import line_of

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ANSWER_S = 15.0
"""A daemon answers within ten seconds."""
MESSAGE_BYTES_MAX = 64 * 1024
MESSAGE_CHARS_MAX = 2048
NO_DAEMON = "does a daemon of this version listen there?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked, and of which daemon. `token` is empty if there is none."""

    mapping: str
    shard: str
    start: str
    limit: int
    url: str
    token: str

    @property
    def address(self) -> str:
        """The URL of the request."""
        given = {"shard": self.shard, "from": self.start, "limit": str(self.limit)}
        query = urlencode({name: value for name, value in given.items() if value}, errors="replace")
        name = quote(self.mapping, safe="", errors="replace")
        return f"{self.url.rstrip('/')}/v1/mappings/{name}/records?{query}"


class _Unanswered(Exception):
    """There are no records to show. The text says why and what to do."""


def show_records(asked: Asked, *, as_json: bool) -> int:
    """Asks and prints; returns the exit status."""
    try:
        body = _fetched(asked)
        answer = _decoded(body)
    except _Unanswered as error:
        print_problems([str(error)])
        return FAILED
    if as_json:
        # Payloads may contain what controls a terminal, so everything but plain ASCII is escaped.
        print(json.dumps(json.loads(body)))
    else:
        show(lambda width: records_page(answer, width))
    return 0


def _decoded(body: bytes) -> PeekAnswer:
    """Raises _Unanswered. Members that this version does not know are ignored."""
    try:
        return msgspec.json.decode(body, type=PeekAnswer)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _Unanswered(f"the answer has no records: {error}; {NO_DAEMON}") from None


def _fetched(asked: Asked) -> bytes:
    """The body of the answer; raises _Unanswered."""
    if not asked.mapping.strip():
        raise _Unanswered("peek: MAPPING: is empty; write a UUID or a name, as `poller status` shows them")
    if problem := url_problem(asked.url):
        raise _Unanswered(problem)
    request = urllib.request.Request(asked.address)
    if asked.token:
        # Where the answer leads elsewhere, the token stays here.
        request.add_unredirected_header("Authorization", f"Bearer {asked.token}")
    where = asked.url
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            body: bytes = answer.read(ANSWER_BYTES_MAX + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise _Unanswered(_refusal(error, asked)) from None
    except http.client.HTTPException as error:
        raise _Unanswered(f"{where}: the answer is no HTTP: {type(error).__name__}; {NO_DAEMON}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise _Unanswered(
            f"{where}: no answer: {reason}; is the daemon running, and --url its address?"
        ) from None
    if len(body) > ANSWER_BYTES_MAX:
        raise _Unanswered(f"{where}: answered more than {ANSWER_BYTES_MAX} bytes; {NO_DAEMON}")
    return body


def _refusal(error: urllib.error.HTTPError, asked: Asked) -> str:
    """Why the daemon refused, in its own words if it has any."""
    message = _message(error)
    if error.code == HTTPStatus.UNAUTHORIZED:
        known = "the daemon does not know the token that was sent" if asked.token else message
        return f"{known or 'the daemon needs a token'}; {GIVE_ONE}"
    return message or f"{asked.url}: answered status {error.code}; {NO_DAEMON}"


def _message(error: urllib.error.HTTPError) -> str:
    try:
        found = json.loads(error.read(MESSAGE_BYTES_MAX))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return ""
    text = found.get("message") if isinstance(found, dict) else None
    return line_of(text, chars_max=MESSAGE_CHARS_MAX) if isinstance(text, str) else ""
