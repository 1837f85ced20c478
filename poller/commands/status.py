"""Owns `poller status`: asks a daemon what runs and shows it, what is blocked first."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from poller.commands.parts import FAILED, tell
from poller.records import Epoch
from poller.status import DaemonStatus, LaneStatus, MappingStatus, ShardStatus

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ANSWER_S = 10.0
ROWS_MAX = 500
"""Shards and lanes shown; the blocked ones come first."""
RECORDS_SHOWN_MAX = 3
NOT_BLOCKED = Epoch(float("inf"))


class Unanswered(Exception):
    """No status came; the text says why and what to do."""


def fetch(url: str) -> bytes:
    """The body of `GET {url}/v1/mappings`; raises Unanswered."""
    if not url.startswith(("http://", "https://")):
        raise Unanswered(f"--url: value {url!r}: not an HTTP URL; write http://HOST:PORT")
    address = url.rstrip("/") + "/v1/mappings"
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_S) as answer:
            body: bytes = answer.read(ANSWER_BYTES_MAX + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise Unanswered(
                f"{address}: answered status {error.code}; does a daemon listen there?"
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


def decode(body: bytes) -> DaemonStatus:
    """The status in a body; raises Unanswered. Members that this version does not know are ignored."""
    try:
        return msgspec.json.decode(body, type=DaemonStatus)
    except msgspec.MsgspecError as error:
        raise Unanswered(f"the answer is no status: {error}; is the daemon of this version?") from None


def show_status(url: str, *, as_json: bool) -> int:
    """Prints one picture; returns the exit status."""
    try:
        body = fetch(url)
        status = decode(body)
    except Unanswered as error:
        tell([str(error)])
        return FAILED
    if as_json:
        print(body.decode())
    else:
        Console().print(screen(status, Epoch(time.time())))
    return 0


def watch_status(url: str, *, every_s: float, pictures: int | None, sleep: Callable[[float], None]) -> int:
    """Shows a new picture every `every_s` seconds until interrupted, `pictures` times if that is given."""
    console = Console()
    shown = 0
    while pictures is None or shown < pictures:
        if shown:
            sleep(every_s)
        shown += 1
        try:
            picture: object = screen(decode(fetch(url)), Epoch(time.time()))
        except Unanswered as error:
            picture = Text(f"poller: {error}")
        console.clear()
        console.print(picture)
    return 0


def screen(status: DaemonStatus, now: Epoch) -> Group:
    """Everything as one picture, made for people; `now` in epoch seconds."""
    ready = "ready" if status.ready else "not ready"
    alive = "" if status.alive else ", not alive"
    lines = [Text(f"worker {_clean(status.worker)}: {ready}{alive}")]
    lines += [Text(f"  {_clean(problem)}") for problem in status.problems]
    lines += [Text(f"  note: {_clean(note)}") for note in status.notes]
    return Group(*lines, _table(status, now))


def _table(status: DaemonStatus, now: Epoch) -> Table:
    table = Table()
    for column in ("mapping", "shard or group", "state", "position", "behind", "what blocks it"):
        table.add_column(column, overflow="fold")
    rows = sorted(
        (row for mapping in status.mappings for row in _rows(mapping, now)), key=lambda row: (row[0], row[1])
    )
    for _, _, cells in rows[:ROWS_MAX]:
        table.add_row(*(Text(_clean(cell)) for cell in cells))
    if len(rows) > ROWS_MAX:
        table.caption = f"{len(rows) - ROWS_MAX} more; poller status --json has them all"
    return table


type Row = tuple[Epoch, str, tuple[str, str, str, str, str, str]]
"""Since when blocked, by which rows are sorted; the mapping's name; the cells."""


def _rows(mapping: MappingStatus, now: Epoch) -> Iterator[Row]:
    name = f"{mapping.function} ← {mapping.source_arn.split(':', 5)[-1]}"
    state = f"{mapping.state}: {mapping.reason}" if mapping.reason else str(mapping.state)
    yield _since(mapping.lanes), name, (name, _pollers(mapping), state, "", "", _trouble(mapping.lanes, now))
    for shard in mapping.shards:
        yield _shard_row(name, shard, now)


def _shard_row(name: str, shard: ShardStatus, now: Epoch) -> Row:
    where = f" at {shard.owner}" if shard.state == "elsewhere" and shard.owner else ""
    reason = f": {shard.reason}" if shard.reason else ""
    state = f"{shard.state}{where}{reason}"
    behind = "" if shard.behind_ms is None else span(shard.behind_ms / 1000)
    cells = (name, str(shard.shard), state, shard.position, behind, _trouble(shard.lanes, now))
    return _since(shard.lanes), name, cells


def _pollers(mapping: MappingStatus) -> str:
    return "" if mapping.pollers is None else f"{mapping.pollers} pollers"


def _since(lanes: tuple[LaneStatus, ...]) -> Epoch:
    return min((lane.blocked_since for lane in lanes if lane.blocked_since is not None), default=NOT_BLOCKED)


def _trouble(lanes: tuple[LaneStatus, ...], now: Epoch) -> str:
    blocked = sorted(
        (lane for lane in lanes if lane.blocked_since is not None), key=lambda lane: _since((lane,))
    )
    return "\n".join(line for lane in blocked for line in _lane_lines(lane, now))


def _lane_lines(lane: LaneStatus, now: Epoch) -> Iterator[str]:
    assert lane.blocked_since is not None
    yield f"{lane.lane}: blocked since {moment(lane.blocked_since, now)}, attempt {lane.attempts}"
    if lane.next_try is not None:
        yield f"  next try {moment(lane.next_try, now)}"
    if lane.last_error:
        yield f"  {lane.last_error}"
    for record in lane.records[:RECORDS_SHOWN_MAX]:
        yield f"  record {record.identifier}, key {record.key}, from {moment(record.arrived, now)}"
    more = max(lane.records_count, len(lane.records)) - RECORDS_SHOWN_MAX
    if more > 0:
        yield f"  and {more} more records"


def moment(when: Epoch, now: Epoch) -> str:
    """`when` as ISO text in UTC and how far from `now` it is."""
    iso = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{iso} ({span(now - when)} ago)" if when <= now else f"{iso} (in {span(when - now)})"


def span(seconds: float) -> str:
    """A length of time as people say it: 0.4 s, 12 s, 5 min, 3 h, 2 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"


def _clean(text: str) -> str:
    """Whatever a function put into its error, the terminal gets only what prints."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
