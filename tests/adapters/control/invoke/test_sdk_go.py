"""AWS's SDK for Go, as it was recorded on the wire: its requests are understood and answered."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from poller.domain.records import Epoch
from poller.testing.telemetry_events import SetClock
from tests.adapters.control.invoke.callers import ARN, CallerModel
from tests.adapters.control.serving import Running, Setting, serving
from tests.adapters.control.test_access import Keys, write
from tests.adapters.control.test_roles import closed, files

__all__ = ["files"]
RECORDED = Epoch(datetime(2026, 12, 2, 5, 5, 23, tzinfo=UTC).timestamp())
KEY, SECRET = "AKIDCALLER", "a-long-random-text"
WAITED_FOR, QUEUED, TRIED, BY_ARN = (
    """\
POST /2015-03-31/functions/orders/invocations HTTP/1.1
Host: 127.0.0.1:8080
User-Agent: aws-sdk-go-v2/1.17.1 os/linux lang/go/1.19.8 md/GOOS/linux md/GOARCH/amd64 api/lambda/1.24.8
Content-Length: 19
Amz-Sdk-Invocation-Id: 06d09044-92ef-493f-9ace-d688ada028eb
Amz-Sdk-Request: attempt=1; max=1
Authorization: AWS4-HMAC-SHA256 Credential=AKIDCALLER/20261202/eu-west-1/lambda/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-date;x-amz-invocation-type;x-amz-log-type, Signature=1c5ed83991d1ee7fed7b227785def5058b7903904f19cd0b09c67f6175406078
Content-Type: application/octet-stream
X-Amz-Date: 20261202T050523Z
X-Amz-Invocation-Type: RequestResponse
X-Amz-Log-Type: Tail
Accept-Encoding: gzip

{"text": "ä 😀"}""",
    """\
POST /2015-03-31/functions/orders/invocations HTTP/1.1
Host: 127.0.0.1:8080
User-Agent: aws-sdk-go-v2/1.17.1 os/linux lang/go/1.19.8 md/GOOS/linux md/GOARCH/amd64 api/lambda/1.24.8
Content-Length: 19
Amz-Sdk-Invocation-Id: 62023c71-36a6-463b-ae70-cb224264e6fa
Amz-Sdk-Request: attempt=1; max=1
Authorization: AWS4-HMAC-SHA256 Credential=AKIDCALLER/20261202/eu-west-1/lambda/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-date;x-amz-invocation-type, Signature=0c08302d872556e3b1854f2644ee79103824fbfdb6cb3ab3aed7ad126760a0ee
Content-Type: application/octet-stream
X-Amz-Date: 20261202T050523Z
X-Amz-Invocation-Type: Event
Accept-Encoding: gzip

{"text": "ä 😀"}""",
    """\
POST /2015-03-31/functions/orders/invocations HTTP/1.1
Host: 127.0.0.1:8080
User-Agent: aws-sdk-go-v2/1.17.1 os/linux lang/go/1.19.8 md/GOOS/linux md/GOARCH/amd64 api/lambda/1.24.8
Content-Length: 19
Amz-Sdk-Invocation-Id: 0887c3a7-49e9-4ff7-a13b-4fa6bc344ba1
Amz-Sdk-Request: attempt=1; max=1
Authorization: AWS4-HMAC-SHA256 Credential=AKIDCALLER/20261202/eu-west-1/lambda/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-date;x-amz-invocation-type, Signature=e086a676ecd93fed4a237eee029a59f4416d0e574eaa39e8bff8a608ef7b2ebd
Content-Type: application/octet-stream
X-Amz-Date: 20261202T050523Z
X-Amz-Invocation-Type: DryRun
Accept-Encoding: gzip

{"text": "ä 😀"}""",
    """\
POST /2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Afunction%3Aorders/invocations HTTP/1.1
Host: 127.0.0.1:8080
User-Agent: aws-sdk-go-v2/1.17.1 os/linux lang/go/1.19.8 md/GOOS/linux md/GOARCH/amd64 api/lambda/1.24.8
Content-Length: 1
Amz-Sdk-Invocation-Id: 8524380b-d0fd-4acf-ab78-76dad4cd2e34
Amz-Sdk-Request: attempt=1; max=1
Authorization: AWS4-HMAC-SHA256 Credential=AKIDCALLER/20261202/eu-west-1/lambda/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-date;x-amz-invocation-type;x-amz-log-type, Signature=ef97db700e00da52d1df42c64b308139825b75f4ffc4152536db8aca3c0a2ad9
Content-Type: application/octet-stream
X-Amz-Date: 20261202T050523Z
X-Amz-Invocation-Type: RequestResponse
X-Amz-Log-Type: Tail
Accept-Encoding: gzip

7""",
)
"""Requests of `lambda.Invoke` to a client with another endpoint URL: of each type, and to an ARN."""


def setting(files: Keys, caller: CallerModel) -> Setting:
    """A server at the time of the requests, that has the key by which they are signed."""
    write(files.keys, f"{KEY}: {SECRET}\n")
    found = closed(files)
    found.calls, found.clock = caller, SetClock(RECORDED)
    return found


def answered(files: Keys, recorded: str, caller: CallerModel) -> tuple[int, bytes, Any]:
    """Status, body and headers of the answer to a recorded request."""
    head, _, payload = recorded.partition("\n\n")
    first, *lines = head.split("\n")
    method, path, _ = first.split(" ")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    sent = [each for each in headers if each[0] != "Content-Length"]

    async def use(run: Running) -> tuple[int, bytes, Any]:
        return await run.exact(method, path, data=payload.encode(), headers=sent)

    return serving(use, setting(files, caller))


def test_a_call_of_the_sdk_for_go_is_answered(files: Keys) -> None:
    caller = CallerModel(log="called\n")
    status, body, headers = answered(files, WAITED_FOR, caller)
    assert (status, json.loads(body)) == (200, {"text": "ä \U0001f600"})
    assert headers["X-Amz-Executed-Version"] == "$LATEST"
    assert headers["X-Amz-Log-Result"]
    assert [(call.function, call.log_tail) for call in caller.asked] == [("orders", True)]


def test_the_sdk_for_go_queues_and_tries_a_call(files: Keys) -> None:
    caller = CallerModel()
    assert answered(files, QUEUED, caller)[:2] == (202, b"")
    assert answered(files, TRIED, caller)[:2] == (204, b"")
    assert [call.payload for call, _ in caller.put] == ['{"text": "ä \U0001f600"}'.encode()]
    assert caller.asked == []


def test_the_sdk_for_go_names_a_function_by_its_arn(files: Keys) -> None:
    caller = CallerModel()
    assert answered(files, BY_ARN, caller)[:2] == (200, b"7")
    assert [call.function for call in caller.asked] == [ARN]


@pytest.mark.parametrize(
    ("before", "after"), [("orders/", "orderz/"), ('"text"', '"next"'), ("Tail", "None")]
)
def test_a_request_of_the_sdk_for_go_that_was_changed_on_the_way_is_refused(
    files: Keys, before: str, after: str
) -> None:
    caller = CallerModel()
    assert answered(files, WAITED_FOR.replace(before, after), caller)[0] == 403
    assert caller.asked == []
