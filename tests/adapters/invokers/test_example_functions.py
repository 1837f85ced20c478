"""The example functions do what they say."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.http import open_http
from adapters.invokers.http_settings import HttpSettings
from adapters.invokers.python import PythonSettings, open_python
from examples.functions import cloud_events
from examples.functions.behind_http import application
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.testing.invoker import invocation
from tests.contracts.invokers import environment, served


def reading(number: int, body: bytes) -> dict[str, Any]:
    """One Kinesis record."""
    kinesis = {"sequenceNumber": str(number), "data": base64.b64encode(body).decode()}
    return {"eventID": f"shardId-000000000000:{number}", "kinesis": kinesis}


RIGHT = b'{"sensor": "s", "value": 1}'
ORDER = {"messageId": "m1", "body": '{"id": 1}'}


@pytest.mark.parametrize(
    ("handler", "records", "failures"),
    [
        ("readings:handler", [reading(1, RIGHT), reading(2, RIGHT)], []),
        ("readings:handler", [reading(1, RIGHT), reading(2, b"{"), reading(3, RIGHT)], ["2"]),
        ("orders:handler", [ORDER], []),
        ("orders:handler", [ORDER, {"messageId": "m2", "body": "{}"}], ["m2"]),
    ],
)
def test_the_python_functions_report_what_failed(
    handler: str, records: list[dict[str, Any]], failures: list[str]
) -> None:
    async def run() -> Outcome:
        settings = PythonSettings(function="example", handler=f"examples.functions.{handler}")
        async with environment() as env, open_python(settings, env) as invoker:
            return await invoker.invoke(invocation({"Records": records}))

    outcome = asyncio.run(run())
    assert isinstance(outcome, Succeeded)
    reported = json.loads(outcome.payload)["batchItemFailures"]
    assert [each["itemIdentifier"] for each in reported] == failures


def test_the_function_behind_http_succeeds_and_fails() -> None:
    async def run() -> list[Outcome]:
        async with (
            served(application()) as url,
            environment() as env,
            open_http(HttpSettings(function="invoices", url=f"{url}/"), env) as invoker,
        ):
            return [await invoker.invoke(invocation({"Records": [each]})) for each in (ORDER, {})]

    assert asyncio.run(run()) == [Succeeded(b""), FunctionError("UnknownRecord", "1 records of no kind")]


def events_taken(records: list[dict[str, Any]], **given: Any) -> Outcome:
    """The outcome of a call of the function that takes CloudEvents."""

    async def run() -> Outcome:
        async with served(cloud_events.application()) as url, environment() as env:
            settings = HttpSettings.model_validate({"function": "payments", "url": f"{url}/", **given})
            async with open_http(settings, env) as invoker:
                return await invoker.invoke(invocation({"Records": records}))

    return asyncio.run(run())


@pytest.mark.parametrize("mode", ["binary", "structured", "batched"])
def test_the_function_of_cloud_events_takes_each_mode(mode: str) -> None:
    assert events_taken([ORDER], cloud_events=mode) == Succeeded(b'{"batchItemFailures": []}')


def test_the_function_of_cloud_events_reports_the_id_of_an_event() -> None:
    outcome = events_taken([ORDER, {}], cloud_events="batched")
    assert isinstance(outcome, Succeeded)
    [failed] = json.loads(outcome.payload)["batchItemFailures"]
    assert failed["itemIdentifier"].startswith("sha256-")


def test_the_function_of_cloud_events_checks_the_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "orders").write_text(f"whsec_{'A' * 32}\n")
    monkeypatch.setenv("WEBHOOK_SECRET", f"whsec_{'A' * 32}")
    signature = {"secret_file": str(file)}
    assert isinstance(events_taken([ORDER], cloud_events="batched", signature=signature), Succeeded)
    monkeypatch.setenv("WEBHOOK_SECRET", f"whsec_{'B' * 32}")
    refused = events_taken([ORDER], cloud_events="batched", signature=signature)
    assert refused == FunctionError(
        "Http.401", "the function's URL answered 401 Unauthorized: no valid signature"
    )
