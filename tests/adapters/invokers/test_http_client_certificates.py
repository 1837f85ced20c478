"""Client certificates of the http invoker, against servers that demand one: shown, renewed, refused, and wrong files."""

import asyncio
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.http import open_http, plugin
from adapters.invokers.http_settings import HttpSettings
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.domain.findings import Finding, Severity
from poller.domain.invocations import Outcome, Succeeded, Unreachable
from poller.plugins import validated
from poller.testing.invoker import invocation
from tests.adapters.tls import authority_in, certificate_in, client_in
from tests.contracts.invokers import environment

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"


@dataclass
class Certificates:
    """The server's certificate, the authority of clients, and a client's certificate and key."""

    server: Path
    authority: Path
    certificate: Path
    key: Path

    def settings(self, **given: Any) -> dict[str, Any]:
        """Settings of a function that trusts the server and shows the certificate."""
        files = {
            "ca_file": str(self.server),
            "client_cert_file": str(self.certificate),
            "client_key_file": str(self.key),
        }
        return {"function": "orders", "url": "https://127.0.0.1/", **files, **given}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = authority_in(folder)
    return Certificates(certificate_in(folder), authority, *client_in(folder, authority))


@pytest.fixture
def certificates(made: Certificates, tmp_path: Path) -> Certificates:
    """Copies that a test may replace."""
    return Certificates(*(Path(shutil.copy(each, tmp_path)) for each in vars(made).values()))


@contextmanager
def demanding(certificates: Certificates, version: ssl.TLSVersion) -> Iterator[str]:
    """A server that demands a certificate of the authority, and answers with the name in it.

    It has a thread and plain sockets: those of asyncio drop the alert by which a server says why it refuses a client.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.authority)
    context.load_cert_chain(certificates.server)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener, context))
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/secret"
        finally:
            # Closing the listener does not wake the thread from `accept`.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Answers one request of each connection, until the listener is closed."""
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        plain.settimeout(5)
        with (
            suppress(OSError),
            plain,
            context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as connection,
        ):
            try:
                connection.do_handshake()
            except ssl.SSLError:
                # What the client has sent is read, or the kernel resets the connection, and the alert may be lost.
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
                continue
            while (received := connection.recv(65_536)) and not received.endswith(b"}"):
                pass
            subject: Any = (connection.getpeercert() or {})["subject"]
            name = dict(pair[0] for pair in subject)["commonName"].encode()
            connection.sendall(ANSWER % (len(name), name))


def called(
    certificates: Certificates,
    *,
    between: Callable[[], object] = lambda: None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    **given: Any,
) -> list[Outcome]:
    """The outcomes of two calls, with something done in between."""

    async def run(url: str) -> list[Outcome]:
        settings = HttpSettings.model_validate(certificates.settings(**{"url": url, **given}))
        async with environment() as env, open_http(settings, env) as invoker:
            first = await invoker.invoke(invocation({"Records": []}, timeout_s=5))
            between()
            second = await invoker.invoke(invocation({"Records": []}, timeout_s=5))
        # TLS says goodbye after a connection was closed; the loop must not end before.
        await asyncio.sleep(0.05)
        return [first, second]

    with demanding(certificates, version) as url:
        return asyncio.run(run(url))


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_certificate_is_shown(certificates: Certificates, version: ssl.TLSVersion) -> None:
    assert called(certificates, version=version) == [Succeeded(b"client")] * 2


def test_the_key_may_be_in_the_file_of_the_certificate(certificates: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.certificate.read_bytes() + certificates.key.read_bytes())
    given: dict[str, Any] = {"client_cert_file": str(both), "client_key_file": None}
    assert called(certificates, **given)[0] == Succeeded(b"client")


def test_a_server_that_nobody_checks_is_shown_the_certificate_too(certificates: Certificates) -> None:
    assert called(certificates, verify_tls=False, ca_file=None)[0] == Succeeded(b"client")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_wants_a_certificate_and_gets_none_is_unreachable(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    for outcome in called(certificates, version=version, client_cert_file=None, client_key_file=None):
        assert isinstance(outcome, Unreachable)
        assert "alert" in outcome.reason.lower()
        assert "secret" not in outcome.reason


@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_of_another_authority_is_unreachable(
    certificates: Certificates, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    (other := tmp_path / "other").mkdir()
    certificate, key = client_in(other, authority_in(other))
    given: dict[str, Any] = {"client_cert_file": str(certificate), "client_key_file": str(key)}
    for outcome in called(certificates, version=version, **given):
        assert isinstance(outcome, Unreachable)
        assert "unknown ca" in outcome.reason.lower().replace("_", " ")


def looked_at(certificates: Certificates, version: ssl.TLSVersion, **given: Any) -> Finding:
    """What a live check finds of TLS."""

    async def run(url: str) -> Finding:
        settings = HttpSettings.model_validate(certificates.settings(**{"url": url, **given}))
        async with environment() as env, open_http(settings, env) as invoker:
            found = {each.check: each for each in await invoker.probe()}
        await asyncio.sleep(0.05)
        assert found["connect"].grade is Severity.OK
        return found["TLS"]

    with demanding(certificates, version) as url:
        return asyncio.run(run(url))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_live_check_shakes_hands(certificates: Certificates, version: ssl.TLSVersion) -> None:
    assert looked_at(certificates, version).grade is Severity.OK
    found = looked_at(certificates, version, client_cert_file=None, client_key_file=None)
    assert found.grade is Severity.PROBLEM
    assert "alert" in found.text.lower()
    found = looked_at(certificates, version, ca_file=str(certificates.certificate))
    assert found.grade is Severity.PROBLEM
    assert found.text.startswith("TLS with 127.0.0.1:")
    assert "secret" not in found.line


def test_a_renewed_certificate_is_shown_from_the_next_call_on(
    certificates: Certificates, tmp_path: Path
) -> None:
    (later := tmp_path / "later").mkdir()

    def renew() -> None:
        certificate, key = client_in(later, certificates.authority, name="renewed")
        shutil.copy(certificate, certificates.certificate)
        shutil.copy(key, certificates.key)

    assert called(certificates, between=renew) == [Succeeded(b"client"), Succeeded(b"renewed")]


def test_a_renewal_by_a_link_is_seen(certificates: Certificates, tmp_path: Path) -> None:
    (old := tmp_path / "..1").mkdir()
    (new := tmp_path / "..2").mkdir()
    shutil.copy(certificates.certificate, old / "tls.crt")
    shutil.copy(certificates.key, old / "tls.key")
    certificate, key = client_in(tmp_path, certificates.authority, name="renewed")
    shutil.copy(certificate, new / "tls.crt")
    shutil.copy(key, new / "tls.key")
    (tmp_path / "..data").symlink_to(old)

    def swap() -> None:
        (tmp_path / "..next").symlink_to(new)
        os.replace(tmp_path / "..next", tmp_path / "..data")

    given: dict[str, Any] = {
        "client_cert_file": str(tmp_path / "..data" / "tls.crt"),
        "client_key_file": str(tmp_path / "..data" / "tls.key"),
    }
    assert called(certificates, between=swap, **given) == [Succeeded(b"client"), Succeeded(b"renewed")]


@pytest.mark.parametrize("how", ["half", "gone", "no PEM", "FIFO"])
def test_while_files_cannot_be_used_what_was_read_before_stays_in_force(
    how: str, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (later := tmp_path / "later").mkdir()

    def spoil() -> None:
        match how:
            case "half":
                shutil.copy(client_in(later, certificates.authority)[0], certificates.certificate)
            case "no PEM":
                certificates.certificate.write_text("hidden")
            case _:
                certificates.key.unlink()
        if how == "FIFO":
            os.mkfifo(certificates.key)

    assert called(certificates, between=spoil) == [Succeeded(b"client")] * 2
    [line] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "functions.orders.client_" in line.getMessage()
    assert line.getMessage().endswith("what was read before stays in force")
    assert "hidden" not in line.getMessage()


def errors(certificates: Certificates, **given: Any) -> list[FieldError]:
    """What the check says of the files."""
    assert plugin.check is not None
    return list(plugin.check(HttpSettings.model_validate(certificates.settings(**given))))


def test_right_files_have_no_errors(certificates: Certificates) -> None:
    assert errors(certificates) == []


def test_a_key_of_another_certificate_is_refused(certificates: Certificates, tmp_path: Path) -> None:
    (other := tmp_path / "other").mkdir()
    _, key = client_in(other, certificates.authority)
    [found] = errors(certificates, client_key_file=str(key))
    assert (found.field, found.wrong) == ("client_key_file", "is not the key of client_cert_file")
    assert not found.here


def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked_for_it(
    certificates: Certificates, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    command = [
        "openssl",
        "pkey",
        "-in",
        str(certificates.key),
        "-aes256",
        "-passout",
        "pass:x",
        "-out",
        str(locked),
    ]
    subprocess.run(command, check=True, capture_output=True)
    [found] = errors(certificates, client_key_file=str(locked))
    assert (found.field, found.wrong) == ("client_key_file", "the key has a pass phrase")


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"client_key_file": None}, "client_cert_file", "name its key in client_key_file"),
        ({"client_key_file": "SERVER.crt"}, "client_key_file", "No such file"),
        ({"client_cert_file": "KEY"}, "client_cert_file", "has no certificate in PEM"),
        ({"client_key_file": "CERT"}, "client_key_file", "has no private key in PEM"),
        ({"client_cert_file": "FOLDER"}, "client_cert_file", "Is a directory"),
        ({"client_cert_file": "a\0b"}, "client_cert_file", "is no path"),
    ],
)
def test_each_wrong_file_is_named_with_a_remedy(
    given: dict[str, Any], field: str, words: str, certificates: Certificates, tmp_path: Path
) -> None:
    places = {"KEY": certificates.key, "CERT": certificates.certificate, "FOLDER": tmp_path}
    named = {name: str(places.get(path, path)) if path else None for name, path in given.items()}
    [found] = errors(certificates, **named)
    assert found.field == field
    assert words in f"{found.wrong}; {found.remedy}"


def test_a_daemon_does_not_start_with_a_wrong_file(certificates: Certificates) -> None:
    certificates.key.write_text("hidden")
    with pytest.raises(InvalidConfiguration) as raised:
        called(certificates)
    assert raised.value.problems == [
        f"functions.orders.client_key_file: {str(certificates.key)!r}: has no private key in PEM; "
        "name the PEM file of the key"
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"client_key_file": "k"}, "is the key of no certificate; name its certificate"),
        (
            {"client_cert_file": "c", "url": "http://h/"},
            "is never shown to a server without TLS",
        ),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        validated(plugin, {"function": "orders", "url": "https://h/"} | given, place="functions.orders")
    assert words in str(raised.value.problems)


def test_a_key_that_everybody_may_read_is_said(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    certificates.key.chmod(0o644)
    called(certificates)
    certificates.key.chmod(0o600)
    assert "make it 0600" in caplog.text
