"""Each request to the API that would change something is told once: who, from where, what, and what became of it."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.control import aws_errors, lambda_api, responses, v1_api
from adapters.control.access import audit, authentication, sigv4
from adapters.control.mappings import tags
from adapters.control.responses import BODY_BYTES_MAX
from adapters.control.settings import ApiSettings
from adapters.observers.log_events import fields_of
from poller.clock import LoopClock
from poller.config import aws_validation, member_rules
from poller.domain.access import Role
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.member_changes import CHANGES_MAX
from poller.domain.telemetry.daemon_events import ApiChange
from poller.domain.telemetry.labels import ApiOperation
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.untrusted.texts import line_of
from poller.runtime.mappings import api_requests
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.serving import Running, Setting, serving
from tests.adapters.control.test_access import TOKEN, Keys, model_with_one, sent, write
from tests.adapters.control.test_lambda_api import ARN, ID, ON_QUEUE, ROOT, TAGS
from tests.adapters.control.test_sigv4 import KEY, SECRET, signed, with_header
from tests.hostile_texts import HOSTILE, fit

OPEN = ApiSettings(allow_unauthenticated=True)
JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
UNSIGNED = "MissingAuthenticationTokenException: Missing Authentication Token"


class Told:
    """An observer that keeps changes."""

    def __init__(self) -> None:
        self.changes: list[ApiChange] = []

    def on(self, event: AnyTelemetryEvent) -> None:
        assert isinstance(event, ApiChange)
        self.changes.append(event)


def told(
    use: Callable[[Running], Awaitable[Any]], model: MappingModel | None = None, *, api: ApiSettings = OPEN
) -> list[ApiChange]:
    """What was told while these requests were made."""
    seen, given = Told(), model or model_with_one()
    setting = Setting(api=api, control=given, tags=given, functions=given, clock=LoopClock(), observer=seen)
    serving(use, setting)
    return seen.changes


@pytest.fixture
def files(tmp_path: Path) -> Keys:
    found = Keys(tmp_path)
    write(found.keys, f"{KEY}: {SECRET}\n")
    write(found.tokens, f"operator: {TOKEN}\n")
    return found


def change(operation: ApiOperation, **more: Any) -> ApiChange:
    given: dict[str, Any] = {"who": KEY, "role": Role.ADMIN, "address": "127.0.0.1", "mapping": ID}
    return ApiChange(operation=operation, **given | more)


def test_each_operation_is_reported_with_who_and_what(files: Keys) -> None:
    async def use(run: Running) -> None:
        created = (
            b'{"FunctionName":"reader","EventSourceArn":"%s","BatchSize":5,"Tags":{"stage":"geheim","a":"b"}}'
            % ON_QUEUE["EventSourceArn"].encode()
        )
        await sent(run, signed("POST", ROOT, body=created))
        await sent(
            run,
            signed("PUT", f"{ROOT}/{ID}", body=b'{"BatchSize":50,"ScalingConfig":{"MaximumConcurrency":7}}'),
        )
        await sent(run, signed("POST", TAGS, body=b'{"Tags":{"team":"geheim"}}'))
        await sent(run, signed("DELETE", f"{TAGS}?tagKeys=team"))
        await run.ask("POST", f"/v1/mappings/{ID.upper()}/disable", headers=BEARER)
        await sent(run, signed("DELETE", f"{ROOT}/{ID}"))

    made = (
        "BatchSize: none -> 5",
        f"EventSourceArn: none -> {ON_QUEUE['EventSourceArn']}",
        "FunctionName: none -> reader",
        "Tags.a",
        "Tags.stage",
    )
    gone = (f"EventSourceArn: {ON_QUEUE['EventSourceArn']} -> none", "FunctionName: reader -> none")
    updated = ("BatchSize: 5 -> 50", "ScalingConfig.MaximumConcurrency: none -> 7")
    assert told(use, MappingModel(ids=[ID]), api=files.api) == [
        change(ApiOperation.CREATE, changes=made),
        change(ApiOperation.UPDATE, changes=updated),
        change(ApiOperation.TAG, changes=("Tags.team",)),
        change(ApiOperation.UNTAG, changes=("Tags.team",)),
        change(ApiOperation.DISABLE, who="operator", changes=("Enabled: none -> false",)),
        change(ApiOperation.DELETE, changes=gone),
    ]


def test_an_access_key_of_awss_form_is_named_in_the_log(files: Keys) -> None:
    key = "AKIAIOSFODNN7EXAMPLE"
    write(files.keys, f"{key}: {SECRET}\n")
    (found,) = told(lambda run: sent(run, signed("DELETE", f"{ROOT}/{ID}", key=key)), api=files.api)
    assert fields_of(found)["who"] == key


CHANGES = [
    (ApiOperation.CREATE, "POST", ROOT),
    (ApiOperation.UPDATE, "PUT", f"{ROOT}/{ID}"),
    (ApiOperation.DELETE, "DELETE", f"{ROOT}/{ID}"),
    (ApiOperation.TAG, "POST", TAGS),
    (ApiOperation.UNTAG, "DELETE", f"{TAGS}?tagKeys=a"),
    (ApiOperation.ENABLE, "POST", f"/v1/mappings/{ID}/enable"),
    (ApiOperation.DISABLE, "POST", f"/v1/mappings/{ID}/disable"),
    (ApiOperation.CLOSE_BREAKER, "POST", "/v1/functions/orders/breaker/close"),
]
ON_WHAT_RUNS = [
    (ApiOperation.OPERATE, "POST", f"/v1/mappings/{ID}/operations"),
    (ApiOperation.CANCEL, "DELETE", "/v1/operations/mine-1"),
    (ApiOperation.SHIFT, "POST", "/v1/functions/orders/aliases/live/shifts"),
    (ApiOperation.ROLL_BACK, "POST", "/v1/functions/orders/aliases/live/rollback"),
]
"""What test_operations_api and test_v1_aliases try in full."""


def test_all_operations_are_tried_here() -> None:
    # Of Invoke only refused requests are reported. It, the configs of functions and their aliases have tests of their own.
    assert {operation for operation, _, _ in CHANGES + ON_WHAT_RUNS} == set(ApiOperation) - {
        ApiOperation.INVOKE,
        ApiOperation.CONFIGURE,
        ApiOperation.ALIAS,
    }


@pytest.mark.parametrize(("operation", "method", "path"), CHANGES + ON_WHAT_RUNS)
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_stranger_is_reported_as_refused(
    operation: ApiOperation, method: str, path: str, slash: str, files: Keys
) -> None:
    if slash and ("?" in path or path.startswith("/v1/")):
        path, slash = path.replace("?", "/?"), ""
    (found,) = told(lambda run: run.ask(method, path + slash), api=files.api)
    assert (found.operation, found.who, found.address) == (operation, "unauthenticated", "127.0.0.1")
    kind = "operations" if "/operations" in path or "/functions" in path else "changes"
    assert found.refused == UNSIGNED or found.refused.startswith(f"Unauthorized: {kind} need a credential")
    assert found.changes == ()


@pytest.mark.parametrize(("operation", "method", "path"), CHANGES)
def test_what_the_daemon_refuses_is_reported_with_the_reason(
    operation: ApiOperation, method: str, path: str
) -> None:
    model = model_with_one()
    model.refusal = ApiError(ApiErrorType.CONFLICT, "It comes from the file.\n\x1b[31m")
    bodies = {
        ApiOperation.CREATE: b'{"FunctionName":"f","BatchSize":1,"EventSourceArn":"a"}',
        ApiOperation.UPDATE: b'{"BatchSize":1}',
        ApiOperation.TAG: b'{"Tags":{"a":"geheim"}}',
    }
    (found,) = told(lambda run: run.ask(method, path, data=bodies.get(operation), headers=JSON), model)
    assert (found.operation, found.who) == (operation, "unauthenticated")
    assert found.refused.strip() == "ResourceConflictException: It comes from the file."
    asked = {
        ApiOperation.CREATE: ("BatchSize", "EventSourceArn", "FunctionName"),
        ApiOperation.UPDATE: ("BatchSize",),
        ApiOperation.TAG: ("a",),
        ApiOperation.UNTAG: ("a",),
        ApiOperation.CLOSE_BREAKER: ("functions.orders.breaker",),
    }
    assert tuple(sorted(found.changes)) == asked.get(operation, ())
    without = (ApiOperation.CREATE, ApiOperation.CLOSE_BREAKER)
    assert found.mapping == ("" if operation in without else ID)


def test_a_wrong_signature_and_a_replay_are_refused(files: Keys) -> None:
    async def use(run: Running) -> None:
        await sent(run, signed("PUT", f"{ROOT}/{ID}", secret="guess-hunter2"))
        request = with_header(signed("PUT", f"{ROOT}/{ID}"), "amz-sdk-invocation-id", "call-1")
        await sent(run, request)
        await sent(run, request)

    wrong, good, replayed = told(use, api=files.api)
    assert (wrong.who, wrong.refused.partition(":")[0]) == ("unauthenticated", "InvalidSignatureException")
    assert "hunter2" not in repr(wrong)
    assert (good.who, good.refused) == (KEY, "")
    assert (
        replayed.refused == "InvalidSignatureException: The signature was used before; sign the request anew."
    )


def test_a_body_that_is_too_large_is_refused() -> None:
    body = io.BytesIO(b" " * (BODY_BYTES_MAX + 1))
    (large,) = told(lambda run: run.ask("PUT", f"{ROOT}/{ID}", data=body, headers=JSON))
    assert large.refused.startswith("413 ")


def test_a_change_that_a_fault_or_the_end_cuts_off_is_reported() -> None:
    class Broken(MappingModel):
        async def delete(self, mapping: Any) -> Any:
            raise KeyError("bug")

        async def update(self, mapping: Any, request: Any) -> Any:
            raise asyncio.CancelledError

    async def use(run: Running) -> None:
        await run.ask("DELETE", f"{ROOT}/{ID}")
        try:
            await run.ask("PUT", f"{ROOT}/{ID}", data=b"{}", headers=JSON)
        except Exception:  # noqa: BLE001 - the connection is cut
            return

    # The client sends again what is cut off.
    fault, cut, *_ = told(use, Broken())
    assert fault.refused == "KeyError: 'bug'"
    assert cut.refused == "no answer was given; look at what is there now"


BROKEN_OFF: dict[str, bytes] = {
    "no body": b"Content-Length: 100\r\n\r\n",
    "half a body": b'Content-Length: 100\r\n\r\n{"FunctionName": "o',
    "half a chunk": b"Transfer-Encoding: chunked\r\n\r\n64\r\n{",
    "no last chunk": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("text", BROKEN_OFF.values(), ids=BROKEN_OFF)
def test_an_upload_that_breaks_off_is_no_refusal(text: bytes, *, reset: bool) -> None:
    async def use(run: Running) -> None:
        address = run.server.address
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(
            f"PUT {ROOT}/{ID} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
            + text
        )
        await writer.drain()
        await asyncio.sleep(0.1)
        if reset:
            writer.transport.abort()
        else:
            writer.close()
        await asyncio.sleep(0.1)

    gone = change(ApiOperation.UPDATE, who="unauthenticated", role=None, mapping=ID, broken_off=True)
    assert told(use) == [gone]


def test_an_upload_that_is_too_slow_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "HANDLE_S", 0.1)

    async def use(run: Running) -> None:
        head = (
            f"PUT {ROOT}/{ID} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{{"
        )
        await run.raw(head.encode())

    gone = change(ApiOperation.UPDATE, who="unauthenticated", role=None, mapping=ID, broken_off=True)
    assert told(use) == [gone]


def test_reads_are_no_changes() -> None:
    async def use(run: Running) -> None:
        for path in (ROOT, f"{ROOT}/{ID}", TAGS, "/v1/mappings", "/metrics", "/nothing"):
            await run.get(path)

    assert told(use) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_request_says_is_one_bounded_line(name: str) -> None:
    text = HOSTILE[name][:200_000]
    body = {"Tags": {text.encode(errors="replace").decode(): "x"}}

    async def use(run: Running) -> None:
        await run.ask("PUT", f"{ROOT}/{ID}", json={"FunctionName": text.encode(errors="replace").decode()})
        await run.ask("POST", TAGS, json=body)
        await run.ask("PUT", f"{ROOT}/" + "%0A%1b" * 50, data=b"{}")

    for found in told(use):
        for line in (found.who, found.mapping, found.refused, *found.changes):
            assert fit(line)
            assert len(line) <= 400
        assert len(found.changes) <= CHANGES_MAX + 1


def _own_texts() -> list[str]:
    modules = [
        audit,
        v1_api,
        aws_errors,
        authentication,
        lambda_api,
        sigv4,
        tags,
        api_requests,
        aws_validation,
        member_rules,
    ]
    return sorted(
        {
            value
            for module in modules
            for name, value in vars(module).items()
            if name.isupper() and isinstance(value, str)
        }
    )


@pytest.mark.parametrize("text", _own_texts())
def test_what_the_api_says_itself_is_reported_whole(text: str) -> None:
    assert (
        line_of(f"UnrecognizedClientException: {text}", chars_max=500)
        == f"UnrecognizedClientException: {text}"
    )


def test_a_resource_is_named_by_its_mapping() -> None:
    (found,) = told(lambda run: run.ask("POST", TAGS, json={"Tags": {"a": "b"}}))
    assert (found.mapping, ARN.endswith(ID)) == (ID, True)
