"""The example functions do what they say."""

import asyncio
import base64
import json
from typing import Any

import pytest

from adapters.invokers.http import open_http
from adapters.invokers.http_settings import HttpSettings
from adapters.invokers.python import PythonSettings, open_python
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
