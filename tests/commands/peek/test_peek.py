"""`poller peek`: what it asks, what it shows of hostile records at any width, and what it says when there is no answer."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from poller.cli import application
from poller.commands.peek.page import WHOLE, records_page
from poller.domain.peeking.answers import PayloadForm, PeekAnswer, UserRecord
from poller.domain.untrusted.rendering import as_json
from tests.adapters.control.peeked import ANSWER, HOSTILE_TEXT, RECORDS, payload
from tests.commands.test_status import JOINERS
from tests.hostile_texts import HOSTILE

WIDTHS = (40, 80, 200)


@dataclass
class Daemon:
    """What answers, and what it was asked."""

    body: bytes
    status: int = 200
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""


class Answering(BaseHTTPRequestHandler):
    """Answers every request with the daemon's body."""

    def do_GET(self) -> None:
        daemon: Daemon = self.server.daemon  # type: ignore[attr-defined]  # set by `answering`
        daemon.asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(daemon.status)
        self.send_header("Content-Length", str(len(daemon.body)))
        self.end_headers()
        self.wfile.write(daemon.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[Daemon]:
    """Something that answers as a daemon does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        daemon = Daemon(body, status, url=f"http://127.0.0.1:{server.server_port}")
        server.daemon = daemon  # type: ignore[attr-defined]  # the handler's only way to know
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield daemon
        finally:
            server.shutdown()
            thread.join()


def call(*words: str, token: str = "") -> Result:
    env = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "POLLER_TOKEN": token}
    return CliRunner().invoke(application([]), ["peek", *words], env=env)


def shown(answer: PeekAnswer, width: int = 80) -> str:
    return "\n".join(records_page(answer, width).lines)


def test_the_daemon_is_asked_for_what_was_written() -> None:
    with answering(as_json(ANSWER)) as daemon:
        done = call(
            "stream/orders", "3", "--from", "2026-01-01T00:00:00+01:00", "--limit", "7", "--url", daemon.url,
            token="do-2",
        )  # fmt: skip
        assert call("orders", "--url", daemon.url + "/").exit_code == 0
    assert done.exit_code == 0, done.output
    assert daemon.asked == [
        (
            "/v1/mappings/stream%2Forders/records?shard=3&from=2026-01-01T00%3A00%3A00%2B01%3A00&limit=7",
            "Bearer do-2",
        ),
        ("/v1/mappings/orders/records?limit=10", ""),
    ]


def test_records_are_shown_with_place_verdict_and_payload_and_how_to_go_on() -> None:
    text = shown(ANSWER, 120)
    assert "orders ← kinesis stream/orders, shardId-000000000003" in text
    assert "batch of lane 0 at fault, since 2026-01-01T00:01:40Z, 3 failed attempts" in text
    assert "    first record 4959033827149\n    last record 4959033827152\n" in text
    assert "2026-01-01T00:00:00Z, 15 bytes, lane 0, passes by pattern 2" in text
    assert '{"state": "paid"}' in text
    assert "lane 1, filtered" in text
    assert 'data.state: none of the values satisfies it (condition: ["paid"])' in text
    assert "full size in bytes: 300000" in text
    assert "40 user records inside" in text
    assert "and 39 more" in text
    assert 'new {"pk":{"S":"7"},"n":{"N":"2"}}' in text
    assert "note: other batches block this shard, too; they begin at 4959033827199" in text
    assert "\nmore: --from AFTER:4959033827152\n" in text


def test_what_is_missing_is_shown() -> None:
    text = shown(replace(ANSWER, missing="payloads are not shown: set api.show_payloads: true"))
    assert "note: payloads are not shown: set api.show_payloads: true" in text


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"next": ""}, "the batch ends here"),
        ({"next": "", "ended": True}, "the shard ends here"),
        ({"next": "", "fault": None, "records": ()}, "nothing more is there now"),
    ],
)
def test_the_end_of_an_answer_says_why_there_is_no_more(changes: dict[str, Any], end: str) -> None:
    assert end in shown(replace(ANSWER, **changes)).splitlines()


def test_json_is_the_answer_in_plain_ascii() -> None:
    hostile = replace(ANSWER, records=(replace(RECORDS[0], payload=payload(HOSTILE_TEXT)),))
    with answering(as_json(hostile)) as daemon:
        done = call("orders", "--json", "--url", daemon.url)
    assert done.exit_code == 0
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert json.loads(done.stdout)["records"][0]["payload"]["text"].startswith("\x1b]0;owned")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("text", [HOSTILE_TEXT, *HOSTILE, "[" * 100_000, "\n" * 50_000, "[red]x[/red]"])
def test_a_hostile_payload_changes_neither_the_terminal_nor_the_layout(text: str, width: int) -> None:
    users = (UserRecord(key=text[:256], payload=payload(text)),) * 3
    records = tuple(
        replace(RECORDS[2], key=text[:256], reasons=(text[:300],), payload=shown_payload, user_records=users)
        for shown_payload in (payload(text), payload(text, form=PayloadForm.BASE64), None)
    )
    page = records_page(replace(ANSWER, records=records, notes=(text[:1000],)), width)
    for line in page.lines:
        assert line.translate(JOINERS).isprintable()
        assert cell_len(line) <= width
    assert len(page.lines) < 200


@given(st.text(max_size=300), st.sampled_from(PayloadForm), st.integers(0, 10))
def test_any_text_is_shown_in_printable_lines(text: str, form: PayloadForm, full: int) -> None:
    records = (replace(RECORDS[0], payload=payload(text, form=form, full=full)),)
    page = records_page(replace(ANSWER, records=records), 60)
    assert all(line.translate(JOINERS).isprintable() for line in page.lines)


def test_a_page_says_how_to_see_what_it_leaves_out() -> None:
    long = replace(ANSWER, records=(replace(RECORDS[0], payload=payload("x" * 10_000)),))
    assert shown(long).splitlines()[-1] == WHOLE


@pytest.mark.parametrize(
    ("status", "body", "token", "text"),
    [
        (
            404,
            b'{"error": "not_found", "message": "\'x\' is no mapping; mappings: a"}',
            "",
            "'x' is no mapping",
        ),
        (409, b'{"message": "the source is a queue"}', "", "the source is a queue"),
        (401, b'{"message": "reads need a credential"}', "", "the daemon needs a token; set POLLER_TOKEN"),
        (401, b"{}", "t", "the daemon does not know the token that was sent; set POLLER_TOKEN"),
        (404, b"no JSON", "", "answered status 404; does a daemon of this version listen there?"),
        (404, b"[" * 50_000, "", "answered status 404"),
        (400, b'{"message": "\\u001b[2J bad"}', "", "bad"),
        (200, b"{}", "", "the answer is no list of records"),
        (200, b"[" * 100_000, "", "the answer is no list of records"),
        (200, b"\xff", "", "the answer is no list of records"),
    ],
)
def test_without_records_the_command_says_why_in_one_line(
    status: int, body: bytes, token: str, text: str
) -> None:
    with answering(body, status) as daemon:
        done = call("x", "--url", daemon.url, token=token)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert text in done.stderr
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("", "--url", "http://127.0.0.1:1"), "MAPPING: is empty"),
        (("x", "--url", "nonsense"), "not an HTTP URL"),
        (("x", "--url", "http://127.0.0.1:1"), "is the daemon running"),
        (("\ud800", "--url", "http://127.0.0.1:1"), "is the daemon running"),
    ],
)
def test_wrong_words_are_refused_with_the_remedy(words: tuple[str, ...], text: str) -> None:
    done = call(*words)
    assert done.exit_code == 2
    assert text in done.stderr
