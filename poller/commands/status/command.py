"""Owns `poller status`: fetches the status of all workers from one of them and shows it, blocked mappings first."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

from poller.commands.daemon_client import DaemonClient, RequestRefused, Unanswered, decoded, quoted
from poller.commands.fitting import Screen, ScreenPage, show
from poller.commands.operations.naming import freeing_commands, name_of, open_breaker
from poller.commands.operations.shell import shell_word
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.status.page import status_page
from poller.domain.operations import OperationPage, OperationState, OperationView
from poller.domain.records import Epoch
from poller.domain.status import DaemonStatus, LaneStatus, MappingStatus, ShardStatus
from poller.output.terminal import lines_of_screen, moves_cursor
from poller.rules.operations.lifecycle import LONG

URL = "http://127.0.0.1:8080"
"""Where a daemon listens unless it is told otherwise."""
STATUS = "status"
CLEAR = "\x1b[H\x1b[2J"
"""Makes the screen of a terminal empty."""
LINES_MIN = 5
"""Of a picture, in however low a window."""
OPERATIONS_MAX = 1000
"""Running operations that are asked for, newest first."""


def fetch(daemon: DaemonClient, worker: str = "") -> bytes:
    """The body of `GET /v1/mappings`; raises Unanswered. With `worker` only what this worker has is asked for."""
    try:
        return daemon.get("/v1/mappings" + (f"?worker={quoted(worker)}" if worker else ""))
    except RequestRefused as error:
        if worker and error.status == HTTPStatus.NOT_FOUND and error.message:
            raise Unanswered(f"--worker: {error.message}") from None
        raise


def running_operations(daemon: DaemonClient) -> tuple[OperationView, ...]:
    """What runs and takes long: replays, seeks and redrives. Nothing if the daemon does not say, as one of an earlier version."""
    try:
        body = daemon.get(f"/v1/operations?state={OperationState.RUNNING}&limit={OPERATIONS_MAX}")
        page = decoded(body, OperationPage, "page of operations")
    except Unanswered:
        return ()
    return tuple(each for each in page.operations if each.action in LONG)


def show_status(daemon: DaemonClient, *, as_json: bool, worker: str = "", everything: bool = False) -> int:
    """Prints the status once, of `worker` alone if it is given; returns the exit status. `everything`: no list is shortened."""
    try:
        body = fetch(daemon, worker)
        status = decoded(body, DaemonStatus, STATUS)
    except Unanswered as error:
        print_problems([str(error)])
        return FAILED
    if as_json:
        print(body.decode())
    else:
        show(_page(status, daemon, running_operations(daemon)), everything=everything)
    return 0


def _page(
    status: DaemonStatus, daemon: DaemonClient, running: Sequence[OperationView]
) -> Callable[[Screen], ScreenPage]:
    """The page as a function of the screen."""
    more = _the_same_daemon(daemon)
    names: dict[str, str] = {}

    def freeing(mapping: MappingStatus, shard: ShardStatus | None, lane: LaneStatus | None) -> Sequence[str]:
        if mapping.mapping not in names:
            names[mapping.mapping] = name_of(mapping, status.mappings)
        worker = shard.owner if shard is not None else lane.worker if lane is not None else ""
        breaker = open_breaker(status, mapping, worker) if lane is not None else ""
        name = names[mapping.mapping]
        return freeing_commands(mapping, name, shard=shard, lane=lane, breaker=breaker, more=more)

    return lambda screen: status_page(status, Epoch(time.time()), screen, freeing, running, more)


def _the_same_daemon(daemon: DaemonClient) -> str:
    """What a command needs at its end to ask the same daemon with the same token."""
    more = "" if daemon.url == os.environ.get("POLLER_URL", URL) else f" --url {shell_word(daemon.url)}"
    return more if daemon.token_file is None else f"{more} --token-file {shell_word(str(daemon.token_file))}"


def watch_status(
    daemon: DaemonClient,
    *,
    every_s: float,
    pictures: int | None,
    sleep: Callable[[float], None],
    worker: str = "",
    everything: bool = False,
) -> int:
    """Shows the status every `every_s` seconds until interrupted, or `pictures` times.

    On a terminal each picture takes the place of the one before, and is cut to the window unless `everything` is shown.
    """
    over = moves_cursor(sys.stdout)
    shown = 0
    while pictures is None or shown < pictures:
        if shown:
            sleep(every_s)
        shown += 1
        made = _picture(daemon, worker)
        if over:
            sys.stdout.write(CLEAR)
        height = lines_of_screen(sys.stdout) if over and not everything else None
        show(made, everything=everything, lines_max=None if height is None else max(height - 1, LINES_MIN))
    return 0


def _picture(daemon: DaemonClient, worker: str) -> Callable[[Screen], ScreenPage]:
    """The page for the present status, as a function of the screen."""
    try:
        status = decoded(fetch(daemon, worker), DaemonStatus, STATUS)
    except Unanswered as error:
        text = f"poller: {error}"
        return lambda screen: _message_page(text, screen)
    return _page(status, daemon, running_operations(daemon))


def _message_page(text: str, screen: Screen) -> ScreenPage:
    page = ScreenPage(screen)
    page.add(text, lines_max=4)
    return page
