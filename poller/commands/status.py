"""Owns `poller status`: fetches the status of all workers from one of them and shows it, blocked mappings first."""

import http.client
import os
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from urllib.parse import quote

import msgspec
from rich.console import Console

from poller.commands.bearer_token import GIVE_ONE
from poller.commands.fitting import ScreenPage, show
from poller.commands.operations.naming import freeing_commands, name_of, open_breaker
from poller.commands.shared import FAILED, print_problems, url_problem
from poller.commands.status_page import status_page
from poller.domain.operations import OperationPage, OperationState, OperationView
from poller.domain.records import Epoch
from poller.domain.status import DaemonStatus, LaneStatus, MappingStatus, ShardStatus
from poller.domain.untrusted.texts import line_of
from poller.rules.operations.lifecycle import LONG

URL = "http://127.0.0.1:8080"
"""Where a daemon listens unless it is told otherwise."""
ANSWER_BYTES_MAX = 64 * 1024 * 1024
ANSWER_S = 10.0
ERROR_BYTES_MAX = 64 * 1024
ERROR_CHARS_MAX = 2000
OPERATIONS_MAX = 1000
"""Running operations that are asked for, newest first."""


class Unanswered(Exception):
    """The status could not be fetched. The text says why and what to do."""


def fetch(url: str, token: str = "", worker: str = "") -> bytes:
    """The body of `GET {url}/v1/mappings`; raises Unanswered. `token` is sent as a bearer token unless it is empty.

    With `worker` only what this worker has is asked for.
    """
    if problem := url_problem(url):
        raise Unanswered(problem)
    query = f"?worker={quote(worker, safe='')}" if worker else ""
    return _body(url.rstrip("/") + "/v1/mappings" + query, token, worker)


def running_operations(url: str, token: str = "") -> tuple[OperationView, ...]:
    """What runs and takes long: replays, seeks and redrives. Nothing if the daemon does not say, as one of an earlier version."""
    try:
        body = _body(
            f"{url.rstrip('/')}/v1/operations?state={OperationState.RUNNING}&limit={OPERATIONS_MAX}", token
        )
        page = msgspec.json.decode(body, type=OperationPage)
    except (Unanswered, msgspec.MsgspecError):
        return ()
    return tuple(each for each in page.operations if each.action in LONG)


def _body(address: str, token: str, worker: str = "") -> bytes:
    request = urllib.request.Request(address)
    if token:
        # Where the answer leads elsewhere, the token stays here.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            body: bytes = answer.read(ANSWER_BYTES_MAX + 1)
    except urllib.error.HTTPError as error:
        with error:
            unknown = _unknown_worker(error) if worker and error.code == HTTPStatus.NOT_FOUND else ""
            raise Unanswered(
                unknown or f"{address}: answered status {error.code}; {_remedy(error.code, token)}"
            ) from None
    except http.client.HTTPException as error:
        raise Unanswered(
            f"{address}: the answer is no HTTP: {type(error).__name__}; does a daemon listen there?"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unanswered(
            f"{address}: no answer: {reason}; is the daemon running, and --url its address?"
        ) from None
    if len(body) > ANSWER_BYTES_MAX:
        raise Unanswered(
            f"{address}: answered more than {ANSWER_BYTES_MAX} bytes; does a daemon listen there?"
        )
    return body


def _unknown_worker(error: urllib.error.HTTPError) -> str:
    """What the daemon says of a worker that it does not know; empty if that is no answer of a daemon."""
    try:
        said = msgspec.json.decode(error.read(ERROR_BYTES_MAX), type=dict[str, str]).get("message", "")
    except (msgspec.MsgspecError, OSError, http.client.HTTPException):
        return ""
    return f"--worker: {line_of(said, chars_max=ERROR_CHARS_MAX)}" if said else ""


def _remedy(code: int, token: str) -> str:
    match code:
        case HTTPStatus.UNAUTHORIZED if token:
            return f"the daemon does not know the token that was sent; {GIVE_ONE}"
        case HTTPStatus.UNAUTHORIZED:
            return f"reads of this daemon need a token; {GIVE_ONE}"
        case HTTPStatus.FORBIDDEN:
            return (
                "the daemon may not know this name of itself (api.allowed_hosts); does a daemon listen there?"
            )
        case _:
            return "does a daemon listen there?"


def decode(body: bytes) -> DaemonStatus:
    """The status in a body; raises Unanswered. Members that this version does not know are ignored."""
    try:
        return msgspec.json.decode(body, type=DaemonStatus)
    except msgspec.MsgspecError as error:
        raise Unanswered(f"the answer is no status: {error}; is the daemon of this version?") from None


def show_status(url: str, *, as_json: bool, token: str = "", worker: str = "") -> int:
    """Prints the status once, of `worker` alone if it is given; returns the exit status."""
    try:
        body = fetch(url, token, worker)
        status = decode(body)
    except Unanswered as error:
        print_problems([str(error)])
        return FAILED
    if as_json:
        print(body.decode())
    else:
        show(_page(status, url, running_operations(url, token)))
    return 0


def _page(status: DaemonStatus, url: str, running: Sequence[OperationView]) -> Callable[[int], ScreenPage]:
    """The page as a function of the screen's width."""
    more = "" if url == os.environ.get("POLLER_URL", URL) else f" --url {shlex.quote(url)}"
    names: dict[str, str] = {}

    def freeing(mapping: MappingStatus, shard: ShardStatus | None, lane: LaneStatus | None) -> Sequence[str]:
        if mapping.mapping not in names:
            names[mapping.mapping] = name_of(mapping, status.mappings)
        worker = shard.owner if shard is not None else lane.worker if lane is not None else ""
        breaker = open_breaker(status, mapping, worker) if lane is not None else ""
        name = names[mapping.mapping]
        return freeing_commands(mapping, name, shard=shard, lane=lane, breaker=breaker, more=more)

    return lambda width: status_page(status, Epoch(time.time()), width, freeing, running)


def watch_status(
    url: str,
    *,
    every_s: float,
    pictures: int | None,
    sleep: Callable[[float], None],
    token: str = "",
    worker: str = "",
) -> int:
    """Shows the status every `every_s` seconds until interrupted, or `pictures` times."""
    console = Console()
    shown = 0
    while pictures is None or shown < pictures:
        if shown:
            sleep(every_s)
        shown += 1
        made = _picture(url, token, worker)
        console.clear()
        show(made, console)
    return 0


def _picture(url: str, token: str, worker: str) -> Callable[[int], ScreenPage]:
    """The page for the present status, as a function of the screen's width."""
    try:
        status = decode(fetch(url, token, worker))
    except Unanswered as error:
        text = f"poller: {error}"
        return lambda width: _message_page(text, width)
    return _page(status, url, running_operations(url, token))


def _message_page(text: str, width: int) -> ScreenPage:
    page = ScreenPage(width)
    page.add(text, lines_max=4)
    return page
