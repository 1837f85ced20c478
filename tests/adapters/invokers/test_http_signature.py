"""Signatures of the http invoker by the Standard Webhooks specification: vectors, ids, rotation, and wrong files."""

import asyncio
import base64
import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from adapters.invokers.http import open_http, plugin
from adapters.invokers.http_settings import HttpSettings
from adapters.invokers.http_signature import Signer, secret_errors, webhook_id_of
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import EncodedEvent, Invocation, Succeeded
from poller.domain.records import Epoch
from poller.plugins import validated
from poller.testing.invoker import ARN, REQUEST_ID
from tests.adapters.invokers.cloud_events.plain_events import SENT, event, kinesis, message
from tests.contracts.invokers import environment, served
from tests.hostile_texts import HOSTILE

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another secret, of 32 bytes ....").decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


def test_a_signature_is_that_of_the_published_example(file: Path) -> None:
    headers = Signer("orders", str(file)).headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', now=Epoch(1614265330.9)
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def verified(secret: str, headers: Any, body: bytes) -> bool:
    """Whether a receiver with this secret takes the request."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    want = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return want in headers["webhook-signature"].split(" ")


def requests_of(
    file: Path, payloads: list[bytes], *, between: Callable[[], object] = lambda: None, **given: Any
) -> list[tuple[Any, bytes]]:
    """Headers and body of each request, with something done after each."""
    seen: list[tuple[Any, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.headers.copy(), await request.read()))
        return web.Response()

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/", handler)
        async with served(app) as url, environment() as env:
            signature = {"secret_file": str(file)}
            settings = {"function": "orders", "url": f"{url}/", "signature": signature, **given}
            async with open_http(HttpSettings.model_validate(settings), env) as invoker:
                for payload in payloads:
                    outcome = await invoker.invoke(Invocation(ARN, REQUEST_ID, EncodedEvent(payload), 5.0))
                    assert outcome == Succeeded(b"")
                    between()

    asyncio.run(run())
    return seen


@pytest.mark.parametrize("mode", [None, "binary", "structured", "batched"])
def test_a_receiver_can_verify_what_arrives_in_every_mode(file: Path, mode: str | None) -> None:
    [(headers, body)] = requests_of(file, [event(message())], cloud_events=mode)
    assert verified(SECRET, headers, body)
    assert not verified(SECRET, headers, body + b" ")
    assert not verified(OTHER, headers, body)


def test_without_the_setting_nothing_is_signed(file: Path) -> None:
    [(headers, _)] = requests_of(file, [event(message())], signature=None)
    assert not [name for name in headers if name.startswith("webhook")]


def test_while_a_secret_is_replaced_receivers_with_either_take_the_request(file: Path) -> None:
    steps = iter([f"# the new one comes first\n{OTHER}\n\n{SECRET}\n", OTHER])

    def rotate() -> None:
        if text := next(steps, None):
            file.write_text(text)

    body = event(message())
    old, both, new = (headers for headers, _ in requests_of(file, [body] * 3, between=rotate))
    assert [(verified(SECRET, each, body), verified(OTHER, each, body)) for each in (old, both, new)] == [
        (True, False),
        (True, True),
        (False, True),
    ]


@pytest.mark.parametrize(
    "text", [None, "", "hidden", f"{SECRET}\n" * 3], ids=["gone", "empty", "other", "three"]
)
def test_while_the_file_cannot_be_used_the_secret_before_stays_in_force(
    file: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil() -> None:
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)

    found = requests_of(file, [event(message())] * 3, between=spoil)
    assert all(verified(SECRET, headers, body) for headers, body in found)
    [line] = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert line.startswith("functions.orders.signature.secret_file: ")
    assert line.endswith("what it held before stays in force")
    assert "hidden" not in line
    assert "secret'); " in line
    assert SECRET not in line


def test_the_id_stays_the_same_when_the_same_messages_come_again() -> None:
    once = event(message("m-1"), message("m-2"))
    again = event(message("m-1", attributes={**SENT, "ApproximateReceiveCount": "2"}), message("m-2"))
    assert webhook_id_of(once, function_arn=ARN) == webhook_id_of(again, function_arn=ARN)


def test_ids_differ_by_messages_by_records_and_by_function() -> None:
    events = [
        event(message("m-1")),
        event(message("m-2")),
        event(message("m-1"), message("m-2")),
        event(message("m-2"), message("m-1")),
        event(kinesis("1")),
        event(kinesis("2")),
        event(),
        b"",
    ]
    ids = [webhook_id_of(each, function_arn=arn) for each in events for arn in (ARN, f"{ARN}2")]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_id_has_nothing_of_what_somebody_outside_wrote(text: str) -> None:
    found = webhook_id_of(event(message(text)), function_arn=ARN)
    assert found.removeprefix("msg_").isalnum()
    assert len(found) == 44


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 secrets, and must have 1 or 2; write a line `whsec_`"),
        ("# only this\n", "has 0 secrets"),
        (f"{SECRET}\n{OTHER}\n{SECRET}", "has 3 secrets, and must have 1 or 2; remove those"),
        ("hidden", "line 1 is no secret; write a line `whsec_`"),
        (f"{SECRET}\n# x\nwhsec_hidden", "line 3 is no secret"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "line 1 is no secret"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "line 1 is no secret"),
        ("x" * 5000, "has more than 4096 bytes"),
        ("\xff\x00", "line 1 is no secret"),
    ],
)
def test_a_wrong_file_is_refused_without_showing_its_text(file: Path, text: str, words: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    [found] = secret_errors(str(file))
    assert words in f"{found.wrong}; {found.remedy}"
    assert "hidden" not in f"{found}"
    with pytest.raises(InvalidConfiguration, match=r"functions\.orders\.signature\.secret_file: .*secret"):
        Signer("orders", str(file))


@pytest.mark.parametrize("path", ["missing", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_named_with_a_remedy(tmp_path: Path, path: str) -> None:
    assert plugin.check is not None
    given = {"function": "orders", "url": "http://h/", "signature": {"secret_file": str(tmp_path / path)}}
    [found] = plugin.check(HttpSettings.model_validate(given))
    assert found.field == "signature.secret_file"
    assert found.remedy


def test_a_secret_that_everybody_may_read_is_said(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.chmod(0o644)
    Signer("orders", str(file))
    assert "make it 0600" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"signature": {}}, "signature.secret_file: is missing"),
        ({"signature": {"secret": "hidden"}}, "unknown setting"),
        ({"headers": {"Webhook-Id": "x"}}, "'Webhook-Id' is a part of the signature; remove it"),
        ({"headers": {"CE-Id": "x"}, "cloud_events": "binary"}, "'CE-Id' is an attribute of the CloudEvent"),
        ({"cloud_events": "avro"}, "write 'binary', 'structured' or 'batched'"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, Any], words: str) -> None:
    usual = {"function": "orders", "url": "http://h/", "signature": {"secret_file": "s"}}
    with pytest.raises(InvalidConfiguration) as raised:
        validated(plugin, usual | given, place="functions.orders")
    problems = " ".join(raised.value.problems)
    assert words in problems
    assert "hidden" not in problems.replace("[hidden]", "")
