"""Lambda's operations on event invoke configs, by AWS's own client and by bodies as they are on the wire."""

import json
from typing import Any

import pytest

from poller.domain.telemetry.labels import ApiOperation
from tests.adapters.control.invoke.callers import ARN, CallerModel
from tests.adapters.control.invoke.test_invoke_api import by_client, files, setting
from tests.adapters.control.serving import Running, serving
from tests.adapters.control.test_access import Keys, sent
from tests.adapters.control.test_audit import Told
from tests.adapters.control.test_sigv4 import signed

__all__ = ["files"]
PATH = "/2019-09-25/functions/orders/event-invoke-config"
QUEUE = {"Destination": "arn:aws:sqs:eu-west-1:111122223333:done"}
TOPIC = {"Destination": "arn:aws:sns:eu-west-1:111122223333:failed"}


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs from call to call."""
    return {name: value for name, value in answer.items() if name not in {"ResponseMetadata", "LastModified"}}


def test_boto3_puts_updates_gets_lists_and_deletes(files: Keys) -> None:
    async def use(run: Running) -> None:
        async def ask(operation: str, **given: Any) -> dict[str, Any]:
            name = f"{operation}_function_event_invoke_config" + ("s" if operation == "list" else "")
            return await by_client(run, name, **({"FunctionName": "orders"} | given))

        put = await ask("put", MaximumRetryAttempts=1, DestinationConfig={"OnSuccess": QUEUE})
        assert put["LastModified"].year >= 2026
        assert plain(put) == {
            "FunctionArn": f"{ARN}:$LATEST",
            "MaximumRetryAttempts": 1,
            "DestinationConfig": {"OnSuccess": QUEUE, "OnFailure": {}},
        }
        changes = {"MaximumEventAgeInSeconds": 60, "DestinationConfig": {"OnFailure": TOPIC}}
        changed = await ask("update", **changes)
        assert plain(changed) == {
            "FunctionArn": f"{ARN}:$LATEST",
            "MaximumRetryAttempts": 1,
            "MaximumEventAgeInSeconds": 60,
            "DestinationConfig": {"OnSuccess": QUEUE, "OnFailure": TOPIC},
        }
        assert plain(await ask("get")) == plain(changed)
        listed = await ask("list")
        assert [plain(each) for each in listed["FunctionEventInvokeConfigs"]] == [plain(changed)]
        assert (await ask("delete"))["ResponseMetadata"]["HTTPStatusCode"] == 204
        gone = await ask("get")
        assert gone["Error"]["Code"] == "ResourceNotFoundException"
        assert (await ask("list"))["FunctionEventInvokeConfigs"] == []

    serving(use, setting(files, CallerModel()))


REFUSED = [
    (b"", 400, "InvalidParameterValueException", "at least one"),
    (b"{}", 400, "InvalidParameterValueException", "at least one"),
    (b"[]", 400, "SerializationException", "list"),
    (b"{", 400, "SerializationException", "JSON"),
    (b'{"MaximumRetryAttempts": "x"}', 400, "SerializationException", "Integer"),
    (b'{"MaximumRetryAttempts": 3}', 400, "ValidationException", "maximumRetryAttempts"),
    (
        b'{"DestinationConfig": {"OnFailure": {"Destination": "x"}}}',
        400,
        "ValidationException",
        "'x' at 'destinationConfig.onFailure.destination'",
    ),
    (
        b'{"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:eu-west-1:111122223333:a.fifo"}}}',
        400,
        "InvalidParameterValueException",
        "a.fifo is invalid",
    ),
]


@pytest.mark.parametrize(("body", "status", "code", "said"), REFUSED)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_wrong_body_is_refused_with_awss_error(
    files: Keys, method: str, body: bytes, status: int, code: str, said: str
) -> None:
    caller = CallerModel()

    async def use(run: Running) -> tuple[int, dict[str, Any], Any]:
        return await sent(run, signed(method, PATH, body=body))

    found, answer, headers = serving(use, setting(files, caller))
    assert (found, headers["x-amzn-errortype"]) == (status, code)
    assert said in json.dumps(answer)
    assert list(caller.configs.list("orders")) == []


def test_changes_are_audited_with_what_they_changed(files: Keys) -> None:
    told = Told()

    async def use(run: Running) -> None:
        for method, body in (("PUT", b'{"MaximumRetryAttempts": 1}'), ("DELETE", b""), ("DELETE", b"")):
            await sent(run, signed(method, PATH, body=body))

    serving(use, setting(files, CallerModel(), told))
    assert [(each.operation, bool(each.refused)) for each in told.changes] == [
        (ApiOperation.CONFIGURE, False),
        (ApiOperation.CONFIGURE, False),
        (ApiOperation.CONFIGURE, True),
    ]
    assert any("MaximumRetryAttempts" in each for each in told.changes[0].changes)
