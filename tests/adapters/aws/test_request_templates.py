"""Hot requests are the library's own: same place, same headers, its credentials, its connections, its errors."""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import get_session
from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, ProxyConnectionError, SSLError

from adapters.aws.clients import client
from adapters.aws.request_templates import FastOperation, decoded
from tests.adapters.answers import environment, on_a_loop
from tests.adapters.tls import certificate_in

pytestmark = pytest.mark.usefixtures("account")

ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
PARAMETERS = {"StreamARN": ARN, "ShardIterator": "here", "Limit": 10}
RECEIVE = {"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/111122223333/q", "MaxNumberOfMessages": 10}
FRESH = {"authorization", "x-amz-date", "amz-sdk-invocation-id", "content-length"}


@dataclass(slots=True)
class Asked:
    """One request as it came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Wire:
    """A server that keeps requests as they come and gives answers in order, the last one for ever."""

    answers: list[tuple[int, Mapping[str, str], bytes]]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *rest = head.rstrip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
                assert len(headers) == len(rest), f"a header was sent twice: {rest}"
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append(Asked(line, headers, body))
                writer.write(self._answer())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self) -> bytes:
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {status} x\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


OK = (200, {"Content-Type": "application/x-amz-json-1.1"}, b'{"Records":[]}')


@asynccontextmanager
async def wire(*answers: tuple[int, Mapping[str, str], bytes], tls: Any = None) -> AsyncIterator[Wire]:
    """A running server."""
    found = Wire(list(answers or (OK,)))
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    found.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield found
    finally:
        server.close()


def signature(asked: Asked, url: str, *, service: str, secret: str, token: str | None = None) -> str:
    """What botocore signs for this request, header by header."""
    fields = dict(
        part.strip().split("=", 1) for part in asked.headers["authorization"].split(" ", 1)[1].split(",")
    )
    signed = {name: asked.headers[name] for name in fields["SignedHeaders"].split(";") if name != "host"}
    request = AWSRequest(method="POST", url=url, headers=signed, data=asked.body)
    request.context["timestamp"] = asked.headers["x-amz-date"]
    credentials = ReadOnlyCredentials(fields["Credential"].split("/")[0], secret, token)
    auth = SigV4Auth(credentials, service, "eu-west-1")
    canonical = auth.canonical_request(request)
    theirs: str = auth.signature(auth.string_to_sign(request, canonical), request)
    assert fields["Signature"] == theirs
    return theirs


async def _refused(*_: object) -> None:
    raise AssertionError("the library was asked to send a request")


@contextmanager
def without_the_library() -> Iterator[None]:
    """Inside, no request may go by the library's way of sending."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AIOHTTPSession, "send", _refused)
        yield


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize(
    ("service", "operation", "named", "parameters"),
    [
        ("kinesis", "GetRecords", "StreamARN", PARAMETERS),
        ("dynamodbstreams", "GetRecords", None, {"ShardIterator": "here", "Limit": 10}),
        ("sqs", "ReceiveMessage", "QueueUrl", RECEIVE),
        ("sqs", "DeleteMessageBatch", "QueueUrl", {"QueueUrl": RECEIVE["QueueUrl"], "Entries": []}),
    ],
)
@on_a_loop
async def test_a_repeated_request_differs_from_the_library_s_in_its_date_and_signature_alone(
    service: str,
    operation: str,
    named: str | None,
    parameters: dict[str, Any],
    token: str | None,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if token:
            patch.setenv("AWS_SESSION_TOKEN", token)
        async with wire() as server, environment(server.url) as env:
            hot = FastOperation(await client(env, service, "eu-west-1"), operation, named=named)
            assert json.loads(await hot(parameters)) == {"Records": []} or service == "sqs"
            with without_the_library():
                assert await hot(parameters) == OK[2], "the second answer comes as it was sent"
            first, second = server.asked
            assert first.line == second.line
            assert json.loads(first.body) == json.loads(second.body)
            assert first.body != second.body, "the second request was not the library's"
            assert {k: v for k, v in first.headers.items() if k not in FRESH} == {
                k: v for k, v in second.headers.items() if k not in FRESH
            }
            assert list(first.headers.keys() ^ second.headers.keys()) == []
            assert second.headers.get("x-amz-security-token") == token
            assert first.headers["amz-sdk-invocation-id"] != second.headers["amz-sdk-invocation-id"]
            name = "dynamodb" if service == "dynamodbstreams" else service
            signature(second, f"{server.url}/", service=name, secret="not-a-secret", token=token)


@on_a_loop
async def test_each_stream_keeps_the_endpoint_that_the_library_chose_for_it() -> None:
    async with wire((403, {}, b"")) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HTTPS_PROXY", server.url)
            async with environment(None) as env:
                aws = await client(env, "kinesis", "eu-west-1")
                hot = FastOperation(aws, "GetRecords", named="StreamARN")
                for account in ("111122223333", "444455556666"):
                    for _ in range(2):
                        with pytest.raises(ProxyConnectionError):
                            await hot(PARAMETERS | {"StreamARN": ARN.replace("111122223333", account)})
    lines = [each.line for each in server.asked]
    assert lines[0] == lines[1] == "CONNECT 111122223333.data-kinesis.eu-west-1.amazonaws.com:443 HTTP/1.1"
    assert lines[2] == lines[3] == "CONNECT 444455556666.data-kinesis.eu-west-1.amazonaws.com:443 HTTP/1.1"


@on_a_loop
async def test_a_proxy_is_used_for_repeated_requests_too() -> None:
    async with wire() as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HTTP_PROXY", server.url)
            async with environment("http://kinesis.example.invalid") as env:
                hot = FastOperation(
                    await client(env, "kinesis", "eu-west-1"), "GetRecords", named="StreamARN"
                )
                await hot(PARAMETERS)
                await hot(PARAMETERS)
    assert [each.line for each in server.asked] == ["POST http://kinesis.example.invalid/ HTTP/1.1"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        (400, {}, b'{"__type":"com.amazonaws#ProvisionedThroughputExceededException","message":"words"}'),
        (400, {"x-amzn-ErrorType": "ExpiredIteratorException:http://x/"}, b'{"message":"words"}'),
        (
            400,
            {"x-amzn-query-error": "AWS.SimpleQueueService.NonExistentQueue;Sender"},
            b'{"__type":"x#QueueDoesNotExist"}',
        ),
        (403, {}, b"{}"),
        (502, {}, b"<html>bad gateway</html>"),
        (503, {}, b""),
    ],
    ids=["type in body", "type in header", "query code", "no code", "html", "empty"],
)
@pytest.mark.parametrize("service", ["kinesis", "sqs"])
@on_a_loop
async def test_an_error_is_what_the_client_s_own_method_makes_of_it(
    answer: tuple[int, Mapping[str, str], bytes], service: str
) -> None:
    async with wire(OK, answer) as server, environment(server.url) as env:
        aws = await client(env, service, "eu-west-1")
        operation, named, parameters = (
            ("GetRecords", "StreamARN", PARAMETERS)
            if service == "kinesis"
            else ("ReceiveMessage", "QueueUrl", RECEIVE)
        )
        hot = FastOperation(aws, operation, named=named)
        await hot(parameters)
        with pytest.raises(ClientError) as ours:
            await hot(parameters)
        with pytest.raises(ClientError) as theirs:
            await (aws.get_records if service == "kinesis" else aws.receive_message)(**parameters)
        assert type(ours.value) is type(theirs.value)
        assert ours.value.response["Error"] == theirs.value.response["Error"]
        status = [each.value.response["ResponseMetadata"]["HTTPStatusCode"] for each in (ours, theirs)]
        assert status == [answer[0], answer[0]]


@on_a_loop
async def test_what_is_signed_in_another_way_stays_with_the_library() -> None:
    async with wire() as server:
        config = AioConfig(signature_version=UNSIGNED)
        async with get_session().create_client(
            "kinesis", region_name="eu-west-1", endpoint_url=server.url, config=config
        ) as aws:
            hot = FastOperation(aws, "GetRecords", named="StreamARN")
            assert [json.loads(await hot(PARAMETERS)) for _ in range(2)] == [{"Records": []}] * 2
    first, second = server.asked
    assert first.body == second.body, "the library writes spaces into its JSON"
    assert "authorization" not in second.headers


PROVIDER = """
import datetime, json, pathlib, sys
calls = pathlib.Path(sys.argv[1])
count = int(calls.read_text()) + 1 if calls.exists() else 1
calls.write_text(str(count))
soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
print(json.dumps({"Version": 1, "AccessKeyId": f"AKID{count}", "SecretAccessKey": f"secret{count}",
                  "SessionToken": f"token{count}", "Expiration": soon.isoformat()}))
"""


def test_credentials_that_expire_soon_are_refreshed_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "provider.py"
    script.write_text(PROVIDER)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {sys.executable} {script} {tmp_path / 'calls'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    asyncio.run(_refreshed())


async def _refreshed() -> None:
    async with wire() as server, environment(server.url) as env:
        hot = FastOperation(await client(env, "kinesis", "eu-west-1"), "GetRecords", named="StreamARN")
        for _ in range(3):
            await hot(PARAMETERS)
            await asyncio.sleep(1.0)
        _, second, third = server.asked
        for asked in (second, third):
            number = asked.headers["x-amz-security-token"].removeprefix("token")
            assert f"Credential=AKID{number}/" in asked.headers["authorization"]
            signature(
                asked, f"{server.url}/", service="kinesis", secret=f"secret{number}", token=f"token{number}"
            )
        assert second.headers["x-amz-security-token"] != third.headers["x-amz-security-token"]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 that signs itself."""
    return certificate_in(tmp_path)


def test_a_custom_authority_counts_for_repeated_requests_too(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SSLError):
        asyncio.run(_over_tls(certificate))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    assert asyncio.run(_over_tls(certificate)) == 2


async def _over_tls(certificate: Path) -> int:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with wire(tls=context) as server, environment(server.url) as env:
        hot = FastOperation(await client(env, "kinesis", "eu-west-1"), "GetRecords", named="StreamARN")
        await hot(PARAMETERS)
        with without_the_library():
            await hot(PARAMETERS)
        return len(server.asked)


@on_a_loop
async def test_no_secret_shows_where_a_request_is_printed() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SESSION_TOKEN", "session-token")
        async with wire() as server, environment(server.url) as env:
            hot = FastOperation(await client(env, "kinesis", "eu-west-1"), "GetRecords", named="StreamARN")
            await hot(PARAMETERS)
            await hot(PARAMETERS)
            (signing,) = hot._signings.values()
            shown = f"{await hot._secrets()} {signing} {signing.recipe} {signing.request(b'{}')}"
    assert signing.headers["X-Amz-Security-Token"] == "session-token"
    for secret in ("session-token", "not-a-secret", signing.authorization(b"{}")[-64:]):
        assert secret not in shown


class Text(msgspec.Struct):
    """An answer with a text."""

    text: str


def test_lone_surrogates_are_read_and_broken_answers_are_not() -> None:
    decoder = msgspec.json.Decoder(Text)
    assert decoded(decoder, b'{"text":"\\ud800"}') == Text("\ud800")
    for broken in (b"", b"[]", b'{"text":"x', b'{"text":1}', b'{"text":"\xff"}', b"{}"):
        with pytest.raises(ValueError, match=r".*"):
            decoded(decoder, broken)
