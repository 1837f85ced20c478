"""`poller calls`: what it asks for, what it prints, and how calls look in the status."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from poller.cli import application
from poller.commands.calls.command import operate_on_calls, sentence
from poller.commands.calls.page import calls_page
from poller.commands.daemon_client import DaemonClient
from poller.commands.operations.command import Manner, Surroundings
from poller.commands.operations.daemon_api import DaemonApi
from poller.commands.status.page import status_page
from poller.domain.functions.waiting_calls import CallPage, CallsStatus, CallState, WaitingCall
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationView,
    function_target,
)
from poller.domain.peeking.answers import PayloadForm, ShownPayload
from poller.domain.records import Epoch
from poller.domain.status import DaemonStatus
from poller.domain.untrusted.rendering import as_json
from tests.commands.test_breaker import Sent, server

NOW = Epoch(1_767_225_600.0)
PAGE = CallPage(
    function="orders",
    calls=(
        WaitingCall(
            id="one",
            accepted=Epoch(NOW - 60),
            due=NOW,
            state=CallState.WAITING,
            attempts=1,
            last_error="ValueError: no",
            payload=ShownPayload(form=PayloadForm.JSON, text='{"n": 1}', full_bytes=8),
        ),
        WaitingCall(id="two", accepted=NOW, due=NOW, state=CallState.RUNNING, attempts=0, owner="ann"),
        WaitingCall(
            id="three",
            accepted=NOW,
            due=NOW,
            state=CallState.UNDELIVERED,
            attempts=3,
            end="RetriesExhausted",
            undelivered=2,
            last_error="connection refused",
        ),
    ),
    next="1767225600.0,three",
)


def view(state: OperationState, result: str = "") -> bytes:
    request = OperationRequest(action=Action.SKIP, members={"calls": ["one"]})
    operation = Operation(
        operation=OperationId("op-1"),
        mapping=function_target("orders"),
        request=request,
        created=NOW,
        state=state,
        result=result,
    )
    return as_json(OperationView.of(operation))


def calls(url: str, *words: str, token: str = "") -> Result:
    env = {"POLLER_TOKEN": token, "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(application([]), ["calls", *words, "--url", url], env=env)


@pytest.mark.parametrize("words", [["orders"], ["list", "orders"]])
def test_a_function_alone_lists_its_calls(words: list[str]) -> None:
    sent = Sent(picture=as_json(PAGE))
    with server(sent) as url:
        result = calls(url, *words, "--state", "waiting", "--limit", "3", token="secret")
    assert result.exit_code == 0
    assert sent.reads == [("/v1/functions/orders/calls?state=waiting&limit=3", "Bearer secret")]
    assert "call one" in result.output
    assert "ValueError: no" in result.output


def test_a_function_that_is_named_like_a_command_is_listed_by_the_long_form() -> None:
    sent = Sent(picture=as_json(PAGE))
    with server(sent) as url:
        assert calls(url, "list", "retry").exit_code == 0
    assert sent.reads[0][0].startswith("/v1/functions/retry/calls")


def test_json_is_what_the_daemon_answers() -> None:
    sent = Sent(picture=as_json(PAGE))
    with server(sent) as url:
        assert json.loads(calls(url, "orders", "--json").output) == json.loads(as_json(PAGE))


def test_the_page_says_of_each_call_what_it_waits_for() -> None:
    page = "\n".join(calls_page(PAGE, 100).lines)
    assert page == (
        "call one\n"
        "  waiting, accepted 2025-12-31T23:59:00Z, 1 attempt, due 2026-01-01T00:00:00Z\n"
        "  ValueError: no\n"
        '  payload {"n": 1}\n'
        "call two\n"
        "  running, accepted 2026-01-01T00:00:00Z, 0 attempts, at ann\n"
        "call three\n"
        "  undelivered (RetriesExhausted), accepted 2026-01-01T00:00:00Z, 3 attempts, due\n"
        "    2026-01-01T00:00:00Z, missing at 2 destinations\n"
        "  connection refused\n"
        "there may be more: --marker 1767225600.0,three"
    )


def test_a_skip_is_sent_with_its_ids_and_its_result_printed() -> None:
    sent = Sent(202, view(OperationState.ACCEPTED), picture=view(OperationState.DONE, "1 call skipped"))
    with server(sent) as url:
        result = calls(url, "skip", "orders", "--id", "one", "--id", "two", "--yes", "--reason", "ticket 7")
    assert (result.exit_code, result.output) == (0, "skip done: 1 call skipped\n")
    ((path, _, request),) = sent.requests
    assert path == "/v1/functions/orders/operations"
    assert request.pop("id")
    assert request == {"action": "skip", "calls": ["one", "two"], "reason": "ticket 7"}


def test_a_skip_that_failed_names_the_option_that_helps() -> None:
    text = '1 has no destination and stays: write "discard": true to drop them'
    sent = Sent(202, view(OperationState.FAILED, text))
    with server(sent) as url:
        result = calls(url, "skip", "orders", "--all", "--yes")
    assert result.exit_code == 1
    assert "add --discard to drop them" in result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["retry", "orders"], "all"),
        (["retry", "orders", "--all"], "all"),
        (["retry", "orders", "--id", "one"], ["one"]),
    ],
)
def test_a_retry_means_all_calls_unless_it_names_some(words: list[str], expected: Any) -> None:
    sent = Sent(202, view(OperationState.DONE, "1 call is tried now"))
    with server(sent) as url:
        assert calls(url, *words, "--yes").exit_code == 0
    assert sent.requests[0][2]["calls"] == expected


@pytest.mark.parametrize("words", [["skip", "orders"], ["skip", "orders", "--id", "one", "--all"]])
def test_a_skip_names_calls_or_means_all_and_not_both(words: list[str]) -> None:
    sent = Sent()
    with server(sent) as url:
        result = calls(url, *words, "--yes")
    assert result.exit_code == 2
    assert "name calls with --id, or write --all" in result.output
    assert sent.requests == []


def test_a_dry_run_says_the_sentence_and_sends_nothing() -> None:
    sent = Sent()
    with server(sent) as url:
        result = calls(url, "skip", "orders", "--all", "--discard", "--dry-run")
    assert result.output == (
        "would do: drop all asynchronous calls of function orders: nobody gets a document of them\n"
    )
    assert sent.requests == []


@pytest.mark.parametrize("answer", ["y", "n"])
def test_it_asks_whether_it_is_meant(answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    sent = Sent(202, view(OperationState.DONE, "1 call skipped"))
    around = Surroundings(answer=lambda _: answer)
    with server(sent) as url:
        api = DaemonApi(DaemonClient(url, ""))
        status = operate_on_calls(
            api, Action.SKIP, "orders", {"calls": ["one"]}, manner=Manner(), around=around
        )
    assert status == (0 if answer == "y" else 1)
    assert len(sent.requests) == (answer == "y")
    assert "skip 1 asynchronous call (one) of function orders" in capsys.readouterr().err


def test_the_sentence_names_a_few_ids() -> None:
    said = sentence(Action.RETRY, "orders", {"calls": [f"id-{number}" for number in range(7)]})
    assert said.startswith(
        "try 7 asynchronous calls (id-0, id-1, id-2, id-3, id-4 and 2 more) of function orders now"
    )


def test_a_refusal_is_told_in_the_words_of_the_options() -> None:
    sent = Sent(404, b'{"error": "ResourceNotFoundException", "message": "no function has this name"}')
    with server(sent) as url:
        result = calls(url, "retry", "nobody", "--yes")
    assert result.exit_code == 2
    assert "no function has this name" in result.output


def test_the_status_shows_what_waits_and_the_commands_that_free_it() -> None:
    waiting = CallsStatus(
        function="orders",
        calls=12,
        seen=12,
        waiting=9,
        running=2,
        undelivered=1,
        oldest=Epoch(NOW - 180),
        first="one",
        last_error="ValueError: no",
    )
    well = CallsStatus(function="audit", calls=3000, seen=1000, waiting=1000, oldest=Epoch(NOW - 5))
    status = DaemonStatus(worker="ann", mappings=(), ready=True, alive=True, calls=(well, waiting))
    lines = status_page(status, NOW, 120, more=" --url http://h:1").lines
    assert lines[1:] == [
        "function orders: 12 asynchronous calls: 9 wait, 2 run, 1 is over and not delivered; the oldest for 3 min",
        "  ValueError: no",
        "  poller calls retry orders --url http://h:1",
        "  poller calls skip --id one orders --url http://h:1",
        "function audit: 3000 asynchronous calls: 1000 wait (of the first 1000); the oldest for 5 s",
    ]


QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders-failed"


def test_a_redrive_is_sent_with_its_queue_and_its_limits() -> None:
    sent = Sent(202, view(OperationState.DONE, "3 calls are made again"))
    with server(sent) as url:
        words = ("--from", QUEUE, "--limit", "3", "--messages-per-s", "2.5", "--yes")
        result = calls(url, "redrive", "orders", *words)
    assert result.exit_code == 0
    request = sent.requests[0][2]
    assert request.pop("id")
    assert request == {"action": "redrive", "from": QUEUE, "limit": 3, "messages_per_s": 2.5}
    said = sentence(Action.REDRIVE, "orders", {"from": QUEUE, "limit": 3})
    assert (
        said
        == f"make 3 calls at most of function orders anew from {QUEUE}, and remove each message whose call is stored"
    )


def test_the_plan_of_a_redrive_comes_from_the_daemon() -> None:
    sent = Sent(202, view(OperationState.DONE, "would make 1 call"))
    with server(sent) as url:
        assert calls(url, "redrive", "orders", "--from", QUEUE, "--dry-run").exit_code == 0
    assert sent.requests[0][2]["dry_run"] is True
