"""`poller status`: what it shows of what is blocked, at any width, whatever the texts are."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from poller.cli import application
from poller.commands import daemon_client
from poller.commands.daemon_client import DaemonClient, decoded
from poller.commands.fitting import ID_LINES_MAX
from poller.commands.status.command import watch_status
from poller.commands.status.page import WHOLE, status_page
from poller.commands.status.times import moment, span
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import (
    BreakerStatus,
    DaemonStatus,
    ErrorDocument,
    FaultyRecord,
    FunctionStatus,
    LaneStatus,
    MappingStatus,
    MappingWorker,
    RateStatus,
    ShardStatus,
    WorkerBreaker,
    WorkerState,
    WorkerStatus,
)
from poller.output.terminal import cells
from tests.hostile_texts import HOSTILE

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
NOW = Epoch(1_767_225_600.0)
UUIDS = ("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11", "7a4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b22")
WIDTHS = (40, 80, 100, 200)
JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))
SHARD_LINES_MAX = 2 * ID_LINES_MAX
LANE_LINES_MAX = 13
"""Of a lane at 40 columns: two each for its name, its tries, its error and three records, and one for those left out."""


def call(*words: str, columns: int = 80) -> Result:
    env = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(application([]), list(words), env=env)


def lane(**fields: Any) -> LaneStatus:
    return LaneStatus(lane="0", state="waiting", **fields)


BLOCKED = MappingStatus(
    mapping=MappingId(UUIDS[1]),
    function="orders",
    source_arn=STREAM,
    state=MappingState.ENABLED,
    shards=(
        ShardStatus(shard=ShardId("shard-fine"), state="reading", position="AFTER:5", behind_ms=400),
        ShardStatus(
            shard=ShardId("shard-bad"),
            state="blocked",
            position="AFTER:7",
            behind_ms=7_200_000,
            lanes=(
                lane(
                    attempts=12,
                    blocked_since=Epoch(NOW - 300),
                    next_try=Epoch(NOW + 12),
                    last_error="ValueError: [red]bad\x1b[31m",
                    error=ErrorDocument(
                        errorType="ValueError",
                        errorMessage="[red]bad",
                        stackTrace=tuple(f"  frame {number}" for number in range(20)),
                    ),
                    records=(FaultyRecord(identifier="8", key="k", arrived=Epoch(NOW - 301)),),
                    records_count=4,
                ),
            ),
        ),
    ),
)
CALM = MappingStatus(
    mapping=MappingId(UUIDS[0]),
    function="audit",
    source_arn=QUEUE,
    state=MappingState.DISABLED,
    reason="switched off",
    pollers=5,
)
PICTURE = DaemonStatus(
    worker="w", mappings=(CALM, BLOCKED), ready=False, alive=True, problems=("not open yet",)
)


class Answering(BaseHTTPRequestHandler):
    """Answers /v1/mappings with the server's body."""

    def do_GET(self) -> None:
        body: bytes = self.server.body  # type: ignore[attr-defined]  # set by `daemon`
        self.send_response(self.server.paths.get(self.path, 404))  # type: ignore[attr-defined]  # as above
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def daemon(body: bytes, paths: Mapping[str, int] | None = None) -> Iterator[str]:
    """The URL of something that answers as a daemon does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.paths = paths or {"/v1/mappings": 200}  # type: ignore[attr-defined]  # the handler's only way to know
        server.body = body  # type: ignore[attr-defined]  # the handler's only way to know
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def shown(picture: DaemonStatus, width: int = 80) -> str:
    return "\n".join(status_page(picture, NOW, width).lines)


def test_a_blocked_shard_can_be_read_at_80_columns() -> None:
    blocked = replace(PICTURE, mappings=(BLOCKED,), ready=True, problems=())
    assert shown(blocked).splitlines() == [
        "worker w: ready",
        "",
        "orders ← kinesis stream/orders",
        f"  {UUIDS[1]}",
        "  Enabled, blocked",
        "  shard-bad blocked, 2 h behind",
        "    AFTER:7",
        "    lane 0 blocked for 5 min",
        "      since 2025-12-31T23:55:00Z, attempt 12, next try in 12 s",
        "      ValueError: [red]bad\\x1b[31m",
        "      record 8, 5 min old, key k",
        "      and 3 more records",
        "  shard-fine  reading  0.4 s behind  AFTER:5",
        "",
        WHOLE,
    ]


FLEET = DaemonStatus(
    worker="ann",
    ready=True,
    alive=True,
    workers=(
        WorkerStatus(worker="ann", state=WorkerState.ALIVE),
        WorkerStatus(worker="bob", state=WorkerState.SILENT, age_s=7.4, out_of_date=True),
        WorkerStatus(worker="cid", state=WorkerState.ALIVE, note="2 mappings do not fit"),
    ),
    mappings=(
        replace(
            BLOCKED,
            workers=(
                MappingWorker(worker="ann", state=MappingState.ENABLED),
                MappingWorker(
                    worker="bob",
                    state=MappingState.ENABLED,
                    blocked=1,
                    left_out=3,
                    age_s=7.4,
                    out_of_date=True,
                ),
                MappingWorker(worker="cid", state=MappingState.UPDATING),
            ),
            shards=(
                ShardStatus(shard=ShardId("s0"), state="reading", position="AFTER:5", owner="ann"),
                ShardStatus(
                    shard=ShardId("s1"),
                    state="blocked",
                    position="",
                    owner="bob",
                    age_s=7.4,
                    out_of_date=True,
                ),
                ShardStatus(
                    shard=ShardId("s2"),
                    state="elsewhere",
                    position="",
                    owner="dan",
                    age_s=None,
                    out_of_date=True,
                ),
            ),
        ),
        replace(
            CALM,
            state=MappingState.ENABLED,
            reason="",
            lanes=(lane(blocked_since=Epoch(NOW - 60), last_error="E: no", attempts=2, worker="cid"),),
        ),
    ),
)


def test_of_several_workers_owners_and_what_is_out_of_date_are_shown() -> None:
    assert shown(FLEET, 100).splitlines() == [
        "worker ann: ready",
        "  3 workers: ann, bob, cid",
        "  worker bob: silent, out of date: last heard 7 s ago",
        "  worker cid: alive; 2 mappings do not fit",
        "",
        "audit ← sqs orders",
        f"  {UUIDS[0]}",
        "  Enabled, 5 pollers, blocked",
        "  lane 0 at cid blocked for 1 min",
        "    since 2025-12-31T23:59:00Z, attempt 2",
        "    E: no",
        "",
        "orders ← kinesis stream/orders",
        f"  {UUIDS[1]}",
        "  Enabled, blocked",
        "  at bob: Enabled, 1 blocked, 3 in trouble not shown, ask it, out of date: last heard 7 s ago",
        "  at cid: Updating",
        "  s1 blocked at bob, out of date: last heard 7 s ago",
        "  s2 elsewhere at dan, out of date: nothing was heard",
        "  s0  reading at ann  AFTER:5",
    ]
    assert "  only worker bob is shown" in shown(replace(FLEET, only="bob", workers=FLEET.workers[1:2]))


def test_worker_asks_for_one_worker_and_an_unknown_one_is_named() -> None:
    with daemon(msgspec.json.encode(PICTURE), {"/v1/mappings?worker=a%20b": 200}) as url:
        found = call("status", "--url", url, "--worker", "a b")
    assert (found.exit_code, "shard-bad" in found.stdout) == (0, True)
    said = {"error": "not_found", "message": "no worker is called 'x'; workers: \x1b[31mann, bob"}
    with daemon(msgspec.json.encode(said), {"/v1/mappings?worker=x": 404}) as url:
        found = call("status", "--url", url, "--worker", "x", columns=200)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "--worker: no worker is called 'x'; workers: ann, bob" in found.stderr


def test_stack_traces_are_in_the_json_and_the_screen_says_so() -> None:
    for width in WIDTHS:
        text = shown(PICTURE, width)
        assert "frame" not in text
        assert "--json" in text
    whole = ErrorDocument(errorType="E", errorMessage="m", stackTrace=("  frame 7",))
    body = msgspec.json.encode(replace(PICTURE, mappings=(with_lane(lane(last_error="E: m", error=whole)),)))
    with daemon(body) as url:
        assert "frame 7" in call("status", "--url", url, "--json").stdout
    assert WHOLE not in shown(replace(PICTURE, mappings=(CALM,)))


def test_what_is_blocked_comes_first() -> None:
    text = shown(PICTURE)
    assert text.index("shard-bad") < text.index("shard-fine") < text.index("audit")
    for part in ("worker w: not ready", "not open yet", "Disabled: switched off, 5 pollers"):
        assert part in text


def test_failing_messages_of_a_standard_queue_show_all_that_is_known() -> None:
    failing = LaneStatus(
        lane="4c1f2a9e-58b2-4f5e-9a53-9b9d3b9d1c11",
        state="waiting",
        attempts=2,
        attempts_max=5,
        failing_since=Epoch(NOW - 300),
        next_try=Epoch(NOW + 12),
        last_error="KeyError: 'sku'",
        records=(FaultyRecord(identifier="4c1f2a9e-58b2-4f5e-9a53-9b9d3b9d1c11", key="", arrived=NOW),),
        records_count=1,
    )
    name, other = failing.lane, "9a5e0c11-58b2-4f5e-9a53-9b9d3b9d1c11"
    last = replace(
        failing,
        lane=other,
        attempts=5,
        records=(FaultyRecord(identifier=other, key="", arrived=NOW),),
    )
    text = shown(
        replace(PICTURE, mappings=(replace(CALM, state=MappingState.ENABLED, lanes=(failing, last)),))
    )
    assert text.splitlines()[4:] == [
        f"  {UUIDS[0]}",
        "  Enabled: switched off, 5 pollers",
        f"  {name} failing for 5 min",
        "    since 2025-12-31T23:55:00Z, receive 2 of 5, next try in 12 s",
        "    KeyError: 'sku'",
        f"  {other} failing for 5 min",
        "    since 2025-12-31T23:55:00Z, receive 5 of 5, to the dead-letter queue in 12 s",
        "    KeyError: 'sku'",
    ]


def test_a_shard_that_is_polled_although_it_could_be_pushed_says_why() -> None:
    reason = "its records are polled, not pushed: kinesis SubscribeToShard: AccessDeniedException (HTTP 400)"
    shard = ShardStatus(
        shard=ShardId("shardId-000000000003"), state="reading", position="AFTER:5", behind_ms=0, reason=reason
    )
    picture = replace(PICTURE, mappings=(replace(CALM, shards=(shard,), lanes=()),))
    screen = " ".join(shown(picture, width=200).split())
    assert f"shardId-000000000003 reading: {reason}" in screen


def test_of_many_failing_messages_some_are_shown_and_the_others_counted() -> None:
    lanes = tuple(
        LaneStatus(lane=f"message-{number}", state="waiting", last_error="E: no", attempts=2)
        for number in range(25)
    )
    text = shown(replace(PICTURE, mappings=(replace(CALM, lanes=lanes),)))
    assert "message-9 failing" in text
    assert "message-10 failing" not in text
    assert "and 15 more failing ones" in text


def test_notes_are_shown_beside_problems() -> None:
    text = shown(replace(PICTURE, notes=("the changed configuration file is refused",)))
    assert "  note: the changed configuration file is refused" in text


def with_lane(*lanes: LaneStatus) -> MappingStatus:
    shard = ShardStatus(
        shard=ShardId("shardId-000000000000"), state="blocked", position="AFTER:7", lanes=lanes
    )
    return replace(BLOCKED, shards=(shard,))


TEXTS = st.sampled_from(sorted(HOSTILE.values())) | st.text(max_size=300) | st.just("日本語 " * 200)
MOMENTS = st.floats(-1e18, 1e18) | st.floats(NOW - 1e6, NOW + 1e6)
LANES = st.builds(
    LaneStatus,
    lane=TEXTS,
    state=TEXTS,
    attempts=st.integers(0, 10**9),
    attempts_max=st.none() | st.integers(1, 1000),
    blocked_since=st.none() | MOMENTS.map(Epoch),
    failing_since=st.none() | MOMENTS.map(Epoch),
    next_try=st.none() | MOMENTS.map(Epoch),
    last_error=TEXTS,
    records=st.lists(
        st.builds(FaultyRecord, identifier=TEXTS, key=TEXTS, arrived=MOMENTS.map(Epoch)), max_size=5
    ).map(tuple),
    records_count=st.integers(0, 10_000),
)
SHARDS = st.builds(
    ShardStatus,
    shard=TEXTS.map(ShardId),
    state=TEXTS,
    position=TEXTS,
    behind_ms=st.none() | st.integers(0, 10**12),
    owner=TEXTS,
    reason=TEXTS,
    lanes=st.lists(LANES, max_size=2).map(tuple),
)
MAPPINGS = st.builds(
    MappingStatus,
    mapping=st.sampled_from(UUIDS).map(MappingId),
    function=TEXTS,
    source_arn=TEXTS | st.just(STREAM),
    state=st.sampled_from(MappingState),
    reason=TEXTS,
    shards=st.lists(SHARDS, max_size=2).map(tuple),
    lanes=st.lists(LANES, max_size=2).map(tuple),
    pollers=st.none() | st.integers(0, 1000),
)


@settings(max_examples=25)
@given(
    mappings=st.lists(MAPPINGS, max_size=2),
    notes=st.lists(TEXTS, max_size=3),
    worker=TEXTS,
    width=st.sampled_from(WIDTHS),
)
def test_no_line_is_longer_than_the_screen_and_each_uuid_stands_whole(
    mappings: list[MappingStatus], notes: list[str], worker: str, width: int
) -> None:
    status = DaemonStatus(
        worker=worker,
        mappings=tuple(mappings),
        ready=True,
        alive=True,
        problems=tuple(notes),
        notes=tuple(notes),
    )
    lines = status_page(status, NOW, width).lines
    assert max(map(cells, lines)) <= width
    assert all(line.translate(JOINERS).isprintable() for line in lines)
    for mapping in mappings:
        assert f"  {mapping.mapping}" in lines
    lanes = [lane for each in mappings for lane in each.lanes]
    lanes += [lane for each in mappings for shard in each.shards for lane in shard.lanes]
    shards = sum(len(each.shards) for each in mappings)
    fixed = 2 + 3 * 2 * len(notes) + len(mappings) * 7 + shards * SHARD_LINES_MAX + 3
    assert len(lines) <= fixed + LANE_LINES_MAX * len(lanes)


@pytest.mark.parametrize("name", HOSTILE)
def test_any_text_may_stand_in_an_error(name: str) -> None:
    for width in WIDTHS:
        lines = shown(replace(PICTURE, mappings=(with_lane(lane(last_error=HOSTILE[name]), lane()),)), width)
        assert max(map(cells, lines.splitlines())) <= width


def test_a_daemon_with_very_much_to_show_is_cut() -> None:
    failing = tuple(lane(blocked_since=Epoch(NOW - n), last_error="E") for n in range(500))
    many = tuple(replace(with_lane(*failing), mapping=MappingId(f"m{n}")) for n in range(300))
    text = shown(replace(PICTURE, mappings=many))
    assert text.count("lane 0 blocked for") == 2000
    assert "and 490 more blocked ones; --all shows them" in text
    assert "and 100 more mappings; --all shows them" in text
    shards = tuple(ShardStatus(shard=ShardId(f"s{n}"), state="reading", position="") for n in range(60))
    found = shown(replace(PICTURE, mappings=(replace(BLOCKED, shards=(*shards, *BLOCKED.shards)),)))
    assert "and 12 more shards, all reading; --all shows them" in found
    assert "shard-bad" in found


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_the_command_takes_its_width_from_columns_where_there_is_no_terminal(columns: int) -> None:
    long = with_lane(lane(blocked_since=NOW, last_error="ValueError: " + "what went wrong " * 60))
    with daemon(msgspec.json.encode(replace(PICTURE, mappings=(long,)))) as url:
        lines = call("status", "--url", url, columns=columns).stdout.splitlines()
    assert columns - 10 < max(map(len, lines)) <= columns
    assert f"  {UUIDS[1]}" in lines
    (error,) = [n for n, line in enumerate(lines) if "ValueError" in line]
    assert lines[error + 1].endswith("…")


def test_status_asks_a_daemon() -> None:
    with daemon(msgspec.json.encode(PICTURE)) as url:
        found = call("status", "--url", url)
        as_json = call("status", "--url", url + "/", "--json")
    assert found.exit_code == 0
    assert "shard-bad" in found.stdout
    assert msgspec.json.decode(as_json.stdout, type=DaemonStatus) == PICTURE


def test_status_ignores_members_it_does_not_know() -> None:
    body = msgspec.json.decode(msgspec.json.encode(PICTURE)) | {"tomorrow": 1}
    assert decoded(msgspec.json.encode(body), DaemonStatus, "status") == PICTURE


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://127.0.0.1", "not an HTTP URL; write http://HOST:PORT"),
        ("http://127.0.0.1:1", "Connection refused; is the daemon running, and --url its address?"),
    ],
)
def test_status_says_why_there_is_none(url: str, text: str) -> None:
    found = call("status", "--url", url)
    assert (found.exit_code, found.stdout) == (2, "")
    assert text in found.stderr


def test_status_of_something_else_than_a_daemon() -> None:
    with daemon(b"<html>") as url:
        wrong_body = call("status", "--url", url)
        wrong_path = call("status", "--url", url + "/other")
    assert (wrong_body.exit_code, wrong_path.exit_code) == (2, 2)
    assert "the answer is no status" in wrong_body.stderr
    assert "answered status 404" in wrong_path.stderr


def test_an_answer_larger_than_any_status_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_client, "ANSWER_BYTES_MAX", 1000)
    with daemon(b" " * 1001) as url:
        found = call("status", "--url", url)
    assert found.exit_code == 2
    assert "answered more than 1000 bytes; does a daemon of this version listen there?" in found.stderr


def test_watching_shows_picture_after_picture(capsys: pytest.CaptureFixture[str]) -> None:
    waits: list[float] = []
    with daemon(msgspec.json.encode(PICTURE)) as url:
        assert watch_status(DaemonClient(url), every_s=3.0, pictures=3, sleep=waits.append) == 0
    assert waits == [3.0, 3.0]
    assert capsys.readouterr().out.count("worker w") == 3


def test_watching_outlasts_a_daemon_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        watch_status(DaemonClient("http://127.0.0.1:1"), every_s=1.0, pictures=1, sleep=lambda _: None) == 0
    )
    assert "no answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.4, "0.4 s"),
        (1, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_lengths_of_time_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_moments_are_iso_also_where_there_is_no_calendar() -> None:
    assert moment(NOW) == "2026-01-01T00:00:00Z"
    assert moment(Epoch(1e300)) == "1e+300"


def test_a_breaker_that_is_open_shows_since_when_why_the_next_try_and_how_to_close_it() -> None:
    breaker = BreakerStatus(
        state="open",
        since=Epoch(NOW - 300),
        reason="5 of 8 calls failed within 60 s: ValueError: x",
        next_try=Epoch(NOW + 12),
    )
    rate = RateStatus(invocations_per_s=50.0, records_per_s=1000.0, share=0.5, waiting=3)
    functions = (
        FunctionStatus(function="orders", rate=rate, breaker=breaker),
        FunctionStatus(function="audit", breaker=BreakerStatus(state="closed", since=NOW)),
    )
    with daemon(msgspec.json.encode(replace(PICTURE, functions=functions))) as url:
        shown = call("status", "--url", url, columns=200).output
    began = moment(Epoch(NOW - 300))
    assert (
        "function orders: 50 invocations/s and 1000 records/s, 50% of it here, 3 waiting, breaker open for"
        in shown
    )
    assert f"since {began}, next try" in shown
    assert "  5 of 8 calls failed within 60 s: ValueError: x\n" in shown
    assert f"  poller breaker close orders --url {url}\n" in shown
    assert "function audit: breaker closed\n" in shown


def test_of_several_workers_the_screen_says_at_which_the_breaker_is_open() -> None:
    broken = BreakerStatus(state="open", since=Epoch(NOW - 300), reason="5 of 8 calls failed", next_try=NOW)
    closed = BreakerStatus(state="closed", since=NOW)
    breakers = (
        WorkerBreaker(worker="ann", breaker=closed),
        WorkerBreaker(worker="bob", breaker=broken, age_s=9.0, out_of_date=True),
    )
    workers = tuple(WorkerStatus(worker=name, state=WorkerState.ALIVE) for name in ("ann", "bob"))
    functions = (
        FunctionStatus(function="orders", breaker=closed, breakers=breakers),
        FunctionStatus(function="theirs", breakers=breakers[1:]),
        FunctionStatus(function="well", breaker=closed, breakers=breakers[:1]),
    )
    page = shown(replace(PICTURE, functions=functions, workers=workers), 200)
    began = moment(Epoch(NOW - 300))
    assert (
        "function orders: breaker open at 1 of 2 workers\n"
        f"  at bob: breaker open for 5 min, since {began}, next try now, out of date: last heard 9 s ago\n"
        "    5 of 8 calls failed\n"
        "  poller breaker close orders\n"
        "function theirs: breaker open at bob\n"
    ) in page
    assert "function well: breaker closed\n" in page


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_texts_of_functions_fit_the_screen(width: int) -> None:
    functions = tuple(
        FunctionStatus(function="f" * 64, breaker=BreakerStatus(state=state, since=NOW, reason=text * 3))
        for text in HOSTILE
        for state in ("open", "half_open", "closed", "unknown")
    )
    page = status_page(replace(PICTURE, functions=functions), NOW, width)
    pasted = "\n".join(page.lines).replace(" \\\n", " ").replace("\\\n", "")
    assert f"poller breaker close {'f' * 64}" in " ".join(pasted.split())
    assert all(cells(line) <= width for line in page.lines)
