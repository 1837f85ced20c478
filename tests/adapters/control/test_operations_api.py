"""Operations through the API: asked for by those who may, listed in pages, shown, cancelled, and told in the audit."""

import io
import re
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from adapters.control.openapi.document import document
from adapters.control.operations_api import PAGE_MAX, VALUES_MAX, _object
from adapters.control.responses import BODY_BYTES_MAX
from adapters.control.settings import ApiSettings
from poller.domain.access import Role
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationView,
)
from poller.domain.records import Epoch, MappingId
from poller.domain.telemetry.labels import ApiOperation
from poller.domain.telemetry.observers import Observer
from poller.rules.operations.members import ACTION_MEMBERS
from poller.rules.operations.reading import OperationRefused, read_request
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.serving import Running, Setting, serving, validate
from tests.adapters.control.test_access import write
from tests.adapters.control.test_audit import Told

ID = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"
PATH = f"/v1/mappings/{ID}/operations"
SKIP = {
    "action": "skip",
    "shard": "shardId-0",
    "lane": 3,
    "records": ["495", "496"],
    "send": True,
    "reason": "a poison record",
    "id": "mine-1",
}


def having(
    use: Callable[[Running], Awaitable[Any]],
    model: OperationModel | None = None,
    *,
    api: ApiSettings | None = None,
    observer: Observer | None = None,
) -> Any:
    given = model if model is not None else OperationModel()
    setting = Setting(operations=given, api=api or ApiSettings(allow_unauthenticated=True), observer=observer)
    return serving(use, setting)


@pytest.fixture
def tokens(tmp_path: Path) -> ApiSettings:
    file = tmp_path / "tokens.yaml"
    write(file, "see: {token: t-view, role: view}\ncall: {token: t-operate, role: operate}\nroot: t-admin\n")
    return ApiSettings(tokens_file=file)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_an_operation_is_stored_and_answered_in_full(tokens: ApiSettings) -> None:
    model = OperationModel()

    async def use(run: Running) -> Any:
        path = f"/v1/mappings/{ID.upper()}/operations"
        return await run.ask("POST", path, json=SKIP, headers=bearer("t-operate"))

    status, body, _ = having(use, model, api=tokens)
    assert status == 202
    validate(body, "OperationView")
    assert body == {
        "id": "mine-1",
        "mapping": ID,
        "action": "skip",
        "state": "accepted",
        "target": {"shard": "shardId-0", "lane": 3, "group": None},
        "members": {"records": ["495", "496"], "send": True},
        "reason": "a poison record",
        "by": "call",
        "created": model.now,
        "ended": None,
        "result": "",
        "wanted": ["shardId-0"],
        "parts": {},
        "progress": {},
        "notes": {},
    }
    assert model.asked == [("submit", (MappingId(ID), SKIP, "call"))]


SECRET = "T000-B000-secret"
URL = f"https://hooks.example/services/{SECRET}?token={SECRET}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", PATH, 202),
        ("GET", "/v1/operations", 200),
        ("GET", "/v1/operations/mine-1", 200),
        ("DELETE", "/v1/operations/mine-1", 200),
    ],
)
def test_the_path_of_a_url_is_shown_to_nobody(method: str, path: str, status: int) -> None:
    """That of a web hook is its secret. The state of a mapping does not show it either."""
    model = OperationModel()
    replay = {"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST", "on_failure": URL, "id": "mine-1"}

    async def use(run: Running) -> Any:
        stored = await model.submit(MappingId(ID), replay, by="call")
        plan = {"discard": {"destination": URL}, "filters": ["{}"], "function": "orders"}
        model.known[stored.operation] = replace(stored, notes={"plan": plan, "waiting": ["a line"]})
        return await run.ask(method, path, json=replay if method == "POST" else None)

    found, body, _ = having(use, model)
    assert found == status
    assert SECRET not in str(body)
    shown = body["operations"][0] if "operations" in body else body
    hidden = "https://hooks.example/[hidden]"
    assert shown["members"] == {"from": "TRIM_HORIZON", "to": "LATEST", "on_failure": hidden}
    assert shown["notes"] == {
        "plan": {"discard": {"destination": hidden}, "filters": ["{}"], "function": "orders"},
        "waiting": ["a line"],
    }
    assert model.known[OperationId("mine-1")].request.members["on_failure"] == URL


@pytest.mark.parametrize(
    ("token", "status", "says"),
    [
        ("", 401, "operations need a credential: send the header `Authorization` with `Bearer TOKEN`"),
        ("t-else", 401, "operations need a credential"),
        ("t-view", 403, "this needs the role operate, and the token see has the role view"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", PATH), ("DELETE", "/v1/operations/mine-1")])
def test_operations_need_the_role_operate(
    method: str, path: str, token: str, status: int, says: str, tokens: ApiSettings
) -> None:
    model = OperationModel()
    headers = bearer(token) if token else {}
    found = having(lambda run: run.ask(method, path, json=SKIP, headers=headers), model, api=tokens)
    assert found[0] == status
    assert found[1]["message"].startswith(says)
    assert model.asked == []


def test_an_admin_may_operate_too(tokens: ApiSettings) -> None:
    status, body, _ = having(
        lambda run: run.ask("POST", PATH, json={"action": "retry"}, headers=bearer("t-admin")), api=tokens
    )
    assert (status, body["by"]) == (202, "root")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b"", "application/json", 400, "the body is no JSON object; send one, such as"),
        (b"[]", "application/json", 400, "the body is no JSON object"),
        (b"{", "application/json", 400, "the body is no JSON object"),
        (
            b'{"action": "retry", "action": "skip"}',
            "application/json",
            400,
            "'action' is there twice; write it once",
        ),
        (b'{"\\u0061ction": "retry", "action": "skip"}', "application/json", 400, "'action' is there twice"),
        (
            b'{"action": "skip", "discard": false, "discard": true}',
            "application/json",
            400,
            "'discard' is there twice",
        ),
        (b'{"action": "retry", "x": {"y": 1, "y": 2}}', "application/json", 400, "'y' is there twice"),
        (b"\xff", "application/json", 400, "the body is no JSON object"),
        (b"[" * 900, "application/json", 400, "the body is no JSON object"),
        (b"[" * 1_020 + b"]" * 1_020, "application/json", 400, "the body is no JSON object"),
        (b"[" * (VALUES_MAX + 1), "application/json", 400, "the body has more than"),
        (b'{"action": "retry"}', "text/plain", 415, "send the body as JSON, with the header"),
        (b"action=retry", "application/x-www-form-urlencoded", 415, "send the body as JSON"),
        (b" " * (BODY_BYTES_MAX + 1), "application/json", 413, "the body is larger than"),
    ],
)
def test_a_body_of_another_form_is_refused_with_the_remedy(
    body: bytes, content_type: str, status: int, says: str
) -> None:
    model = OperationModel()
    found = having(
        lambda run: run.ask("POST", PATH, data=io.BytesIO(body), headers={"Content-Type": content_type}),
        model,
    )
    assert found[0] == status
    assert found[1]["message"].startswith(says)
    assert model.asked == []


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (ApiErrorType.PARAMETER, 400),
        (ApiErrorType.MISSING, 404),
        (ApiErrorType.CONFLICT, 409),
        (ApiErrorType.THROTTLED, 429),
        (ApiErrorType.SERVICE, 500),
    ],
)
def test_a_refused_request_says_what_there_is(fault: ApiErrorType, status: int) -> None:
    text = "shard: 'shardId-9' is not held by anybody; shards of this mapping: shardId-0"
    model = OperationModel(refusal=ApiError(fault, text))
    found = having(lambda run: run.ask("POST", PATH, json=SKIP), model)
    assert found[0] == status
    assert found[1]["message"] == text


def filled(count: int) -> OperationModel:
    """A model that has operations with these numbers, two in each second."""
    model = OperationModel()

    async def use(run: Running) -> None:
        for number in range(count):
            body = {"action": "retry", "id": f"op-{number:04}"}
            assert (await run.ask("POST", PATH, json=body))[0] == 202

    having(use, model)
    return model


def test_the_list_comes_in_pages_newest_first() -> None:
    model = filled(7)

    async def use(run: Running) -> list[list[str]]:
        pages, after = [], ""
        while True:
            _, body, _ = await run.get(f"/v1/operations?limit=3{after}")
            validate(body, "OperationPage")
            pages.append([each["id"] for each in body["operations"]])
            if body["next"] is None:
                return pages
            # What is new since does not move the pages.
            await run.ask("POST", PATH, json={"action": "reset", "id": f"late-{len(pages)}"})
            after = f"&after={body['next']}"

    assert having(use, model) == [
        ["op-0006", "op-0005", "op-0004"],
        ["op-0003", "op-0002", "op-0001"],
        ["op-0000"],
    ]


def test_operations_of_the_same_moment_are_neither_repeated_nor_left_out() -> None:
    model = filled(5)
    model.known = {name: replace(each, created=Epoch(model.now)) for name, each in model.known.items()}

    async def use(run: Running) -> list[str]:
        found, after = [], ""
        while True:
            _, body, _ = await run.get(f"/v1/operations?limit=2{after}")
            found += [each["id"] for each in body["operations"]]
            if body["next"] is None:
                return found
            after = f"&after={body['next']}"

    assert having(use, model) == [f"op-{number:04}" for number in range(5)]


def test_the_list_is_filtered_by_mapping_and_state() -> None:
    model = OperationModel()
    having(lambda run: run.get(f"/v1/operations?mapping={ID.upper()}&state=running"), model)
    assert model.asked == [("operations", (MappingId(ID), OperationState.RUNNING))]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("state=open", "state: 'open': write one of accepted, running, done, failed, cancelled"),
        ("limit=0", f"limit: '0': write a whole number from 1 to {PAGE_MAX}"),
        ("limit=1001", "limit: '1001': write a whole number"),
        ("limit=x", "limit: 'x': write a whole number"),
        ("limit=%D9%A1", "limit: '١': write a whole number"),
        ("after=x", "after: take it from `next` of an answer"),
    ],
)
def test_a_wrong_parameter_of_the_list_is_refused(query: str, says: str) -> None:
    status, body, _ = having(lambda run: run.get(f"/v1/operations?{query}"))
    assert status == 400
    assert body["message"].startswith(says)


def test_one_operation_is_shown_and_cancelled() -> None:
    model = filled(1)

    async def use(run: Running) -> list[Any]:
        path = "/v1/operations/op-0000"
        asked = [("GET", path), ("DELETE", path), ("GET", path), ("DELETE", path), ("GET", path + "x")]
        return [(await run.ask(method, each))[:2] for method, each in asked]

    found = having(use, model)
    assert [status for status, _ in found] == [200, 200, 200, 409, 404]
    assert [body["state"] for status, body in found if status == 200] == [
        "accepted",
        "cancelled",
        "cancelled",
    ]
    assert model.asked[2] == ("cancel", ("op-0000", "unauthenticated"))


def test_reads_follow_the_rule_for_reads(tokens: ApiSettings) -> None:
    closed = tokens.model_copy(update={"reads": "token"})

    async def use(run: Running) -> list[int]:
        paths = ("/v1/operations", "/v1/operations/a")
        statuses = [(await run.get(path))[0] for path in paths]
        return statuses + [(await run.get(path, headers=bearer("t-view")))[0] for path in paths]

    assert having(use, api=closed) == [401, 401, 200, 404]


def test_without_a_control_nothing_is_operated() -> None:
    async def use(run: Running) -> list[int]:
        asked = [("POST", PATH), ("GET", "/v1/operations"), ("GET", "/v1/operations/a")]
        return [(await run.ask(method, path, json=SKIP))[0] for method, path in asked]

    setting = Setting(api=ApiSettings(allow_unauthenticated=True))
    assert serving(use, setting) == [501, 501, 501]


def test_each_operation_is_told_with_what_was_asked(tokens: ApiSettings) -> None:
    told = Told()

    async def use(run: Running) -> None:
        await run.ask("POST", PATH, json=SKIP, headers=bearer("t-operate"))
        await run.ask("DELETE", "/v1/operations/mine-1", headers=bearer("t-operate"))
        await run.ask("POST", PATH, json=SKIP, headers=bearer("t-view"))

    having(use, api=tokens, observer=told)
    asked, cancelled, refused = told.changes
    assert (asked.operation, asked.who, asked.role) == (ApiOperation.OPERATE, "call", Role.OPERATE)
    assert (asked.mapping, asked.operation_id, asked.refused) == (ID, "mine-1", "")
    assert asked.changes == (
        "action: none -> skip",
        "lane: none -> 3",
        "reason: none -> a poison record",
        'records: none -> ["495", "496"]',
        "send: none -> true",
        "shard: none -> shardId-0",
    )
    assert (cancelled.operation, cancelled.operation_id) == (ApiOperation.CANCEL, "mine-1")
    assert cancelled.changes == ("state: cancelled",)
    assert (refused.who, refused.mapping, refused.changes) == ("see", ID, ())
    assert refused.refused.startswith("Forbidden: this needs the role operate")


def test_a_refused_operation_is_told_with_the_names_of_its_members() -> None:
    told = Told()
    model = OperationModel(refusal=ApiError(ApiErrorType.PARAMETER, "records: none of these"))
    having(lambda run: run.ask("POST", PATH, json=SKIP), model, observer=told)
    (change,) = told.changes
    assert change.changes == tuple(SKIP)
    assert change.refused == "InvalidParameterValueException: records: none of these"


@pytest.mark.parametrize("action", Action)
def test_the_documents_request_takes_every_action(action: Action) -> None:
    components = document()["components"]
    schema = {"$ref": "#/components/schemas/OperationRequest", "components": components}
    assert jsonschema_rs.is_valid(schema, {"action": action.value, "reason": "why"})
    assert not jsonschema_rs.is_valid(schema, {"action": action.value.upper()})


@pytest.mark.parametrize("action", list(Action))
def test_the_documents_request_and_the_documentation_have_every_member(action: Action) -> None:
    properties = document()["components"]["schemas"]["OperationRequest"]["properties"]
    page = (Path(__file__).parents[3] / "docs/operate/operations.md").read_text()
    table = page.partition("| member | of | meaning |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    told = {name for members, of in rows if f"`{action}`" in of for name in re.findall(r"`(\w+)`", members)}
    assert ACTION_MEMBERS[action].keys() <= properties.keys()
    assert ACTION_MEMBERS[action].keys() == told


REQUESTS: list[tuple[dict[str, Any], bool]] = [
    ({"action": "skip", "records": "first"}, True),
    ({"action": "skip", "records": ["495"], "discard": True}, True),
    ({"action": "skip", "records": "last"}, False),
    ({"action": "skip", "records": [495]}, False),
    ({"action": "skip", "records": "first", "send": "yes"}, False),
    ({"action": "seek", "to": 1.5, "shards": ["0"], "skip": True, "dry_run": None}, True),
    ({"action": "seek", "to": "LATEST", "shards": "0"}, False),
    ({"action": "seek", "to": "LATEST", "dry_run": 1}, False),
    ({"action": "redrive", "from": "s3://b/p", "limit": 1, "messages_per_s": 0.5, "dry_run": False}, True),
    ({"action": "redrive", "from": "s3://b/p", "limit": 0}, False),
    ({"action": "redrive", "from": "s3://b/p", "messages_per_s": 0}, False),
    ({"action": "replay", "from": 0, "to": "LATEST", "filter": "{}", "records_per_s": 5}, True),
    ({"action": "replay", "from": 0, "to": "LATEST", "records_per_s": "5"}, False),
]


@pytest.mark.parametrize(("given", "good"), REQUESTS)
def test_the_documents_request_is_what_is_accepted(given: dict[str, Any], good: bool) -> None:
    schema = {"$ref": "#/components/schemas/OperationRequest", "components": document()["components"]}
    assert jsonschema_rs.is_valid(schema, given) is good
    if good:
        assert read_request(given).request.action == given["action"]
    else:
        with pytest.raises(OperationRefused):
            read_request(given)


def test_the_view_has_everything_that_an_operation_has() -> None:
    shown = {each.name for each in fields(OperationView)} | {"operation", "request", "revision"}
    assert {each.name for each in fields(Operation)} <= shown
    assert {each.name for each in fields(OperationRequest)} <= shown


def test_the_deepest_body_that_can_be_read_is_looked_through() -> None:
    deep = b'{"reason": ' + b"[" * 1_020 + b'{"x": 1, "x": 2}' + b"]" * 1_020 + b"}"
    with pytest.raises(ApiError, match="'x' is there twice"):
        _object(deep)
