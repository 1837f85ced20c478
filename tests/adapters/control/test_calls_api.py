"""Asynchronous calls through the API: who sees what of them, how pages go on, and how operations on them are asked for."""

import json
from dataclasses import replace

import pytest

from adapters.control.openapi.document import document
from adapters.control.operations_api import JSON
from poller.domain.access import Role
from poller.domain.functions.queued_calls import CallAnswer, CallEnd, CallId, CallPlace, EndedCall, QueuedCall
from poller.domain.functions.waiting_calls import CallsRequest, CallState
from poller.domain.operations import Action
from poller.domain.records import Epoch, WorkerId
from poller.domain.telemetry.daemon_events import PayloadsShown
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.rules.operations.members import CALL_MEMBERS
from tests.adapters.control.invoke.callers import CallerModel
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.serving import Running, Setting, serving, validate
from tests.adapters.control.test_access import Keys
from tests.adapters.control.test_roles import ROLES, TOKENS, bearer, closed, files

__all__ = ["files"]
PATH = "/v1/functions/orders/calls"
OPERATIONS = "/v1/functions/orders/operations"
NOW = Epoch(1_767_225_600.25)
SECRET = b'{"card": "4111"}'
FIRST = QueuedCall(
    call=CallId("one"),
    function="orders",
    arn="arn:aws:lambda:eu-west-1:111122223333:function:orders",
    payload=SECRET,
    accepted=Epoch(NOW - 60),
    due=NOW,
    attempts=1,
    last_error="ValueError: no",
)
CALLS = (
    FIRST,
    replace(FIRST, call=CallId("two"), due=Epoch(NOW + 1), owner=WorkerId("ann"), last_error=""),
    replace(
        FIRST,
        call=CallId("three"),
        due=Epoch(NOW + 2),
        ended=EndedCall(CallEnd.AGE, NOW, CallAnswer(error="no room"), ("arn:one",), 2),
        last_error="",
    ),
)


class Told:
    """An observer that keeps who saw payloads."""

    def __init__(self) -> None:
        self.shown: list[PayloadsShown] = []

    def on(self, event: AnyTelemetryEvent) -> None:
        if isinstance(event, PayloadsShown):
            self.shown.append(event)


def setting(files: Keys, *, show: bool = False, told: Told | None = None) -> Setting:
    found = closed(files)
    found.observer = told
    found.calls, found.operations = CallerModel(waiting=CALLS), OperationModel()
    found.api = found.api.model_copy(update={"show_payloads": show})
    return found


def test_a_page_shows_what_each_call_waits_for_and_no_payload(files: Keys) -> None:
    status, body, _ = serving(lambda run: run.get(PATH, headers=bearer("looker")), setting(files))
    assert status == 200
    validate(body, "CallPage")
    assert [each["state"] for each in body["calls"]] == ["waiting", "running", "undelivered"]
    assert [each["owner"] for each in body["calls"]] == ["", "ann", ""]
    assert [each["last_error"] for each in body["calls"]] == ["ValueError: no", "", "no room"]
    assert body["calls"][2]["end"] == "EventAgeExceeded"
    assert body["calls"][2]["undelivered"] == 1
    assert {each["payload"] for each in body["calls"]} == {None}
    assert "api.show_payloads" in body["missing"]
    assert "4111" not in json.dumps(body)


@pytest.mark.parametrize("name", TOKENS)
def test_payloads_are_for_operators_if_the_daemon_shows_them_and_it_is_told(files: Keys, name: str) -> None:
    told = Told()
    status, body, _ = serving(
        lambda run: run.get(PATH, headers=bearer(name)), setting(files, show=True, told=told)
    )
    assert status == 200
    allowed = ROLES[name].includes(Role.OPERATE)
    assert body["payloads"] is allowed
    shown = [each["payload"] and each["payload"]["text"] for each in body["calls"]]
    assert shown == ([SECRET.decode()] * 3 if allowed else [None] * 3)
    assert [(each.mapping, each.records, each.first, each.last) for each in told.shown] == (
        [("calls/orders", 3, "one", "three")] if allowed else []
    )


def test_pages_go_on_behind_the_marker(files: Keys) -> None:
    async def use(run: Running) -> list[str]:
        found, path = [], f"{PATH}?limit=2"
        while path:
            _, body, _ = await run.get(path, headers=bearer("looker"))
            found += [each["id"] for each in body["calls"]]
            path = f"{PATH}?limit=2&marker={body['next']}" if body["next"] else ""
        return found

    made = setting(files)
    assert serving(use, made) == ["one", "two", "three"]
    assert isinstance(made.calls, CallerModel)
    assert made.calls.listed[1][1].after == CallPlace(Epoch(NOW + 1), CallId("two"))


def test_one_state_is_asked_for(files: Keys) -> None:
    made = setting(files)
    _, body, _ = serving(lambda run: run.get(f"{PATH}?state=undelivered", headers=bearer("looker")), made)
    assert [each["id"] for each in body["calls"]] == ["three"]
    assert isinstance(made.calls, CallerModel)
    assert made.calls.listed == [("orders", CallsRequest(state=CallState.UNDELIVERED))]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=odd", "write one of waiting, running, undelivered"),
        ("limit=0", "a whole number from 1 to 500"),
        ("limit=501", "a whole number from 1 to 500"),
        ("marker=x", "take it from `next`"),
        ("marker=" + "1" * 40 + ",a", "take it from `next`"),
        ("odd=1", "is no parameter"),
        ("limit=1&limit=2", "is given twice"),
    ],
)
def test_a_wrong_parameter_is_refused(files: Keys, query: str, said: str) -> None:
    status, body, _ = serving(
        lambda run: run.get(f"{PATH}?{query}", headers=bearer("looker")), setting(files)
    )
    assert status == 400
    assert said in body["message"]


def test_a_function_that_nobody_knows_is_missing_and_a_server_without_calls_shows_none(files: Keys) -> None:
    async def use(run: Running) -> int:
        return (await run.get("/v1/functions/nobody/calls", headers=bearer("looker")))[0]

    assert serving(use, setting(files)) == 404
    assert serving(use, closed(files)) == 501


@pytest.mark.parametrize("name", TOKENS)
def test_an_operator_asks_for_an_operation_on_calls(files: Keys, name: str) -> None:
    request = {"action": "skip", "calls": ["one"], "reason": "ticket 7"}
    made = setting(files)
    status, body, _ = serving(
        lambda run: run.ask(
            "POST", OPERATIONS, data=json.dumps(request), headers=bearer(name) | {"Content-Type": JSON}
        ),
        made,
    )
    allowed = ROLES[name].includes(Role.OPERATE)
    assert status == (202 if allowed else 403)
    assert isinstance(made.operations, OperationModel)
    assert made.operations.asked == ([("submit", ("calls/orders", request, name))] if allowed else [])
    if allowed:
        validate(body, "OperationView")
        assert (body["mapping"], body["members"]) == ("calls/orders", {"calls": ["one"]})


def test_operations_on_calls_of_one_function_are_listed(files: Keys) -> None:
    made = setting(files)
    serving(lambda run: run.get("/v1/operations?mapping=calls/Orders", headers=bearer("looker")), made)
    assert isinstance(made.operations, OperationModel)
    assert made.operations.asked == [("operations", ("calls/Orders", None))]


@pytest.mark.parametrize("action", list(CALL_MEMBERS))
def test_the_documents_request_has_every_action_and_member(action: Action) -> None:
    properties = document()["components"]["schemas"]["CallOperationRequest"]["properties"]
    assert properties["action"]["enum"] == [each.value for each in CALL_MEMBERS]
    assert CALL_MEMBERS[action].keys() <= properties.keys()
