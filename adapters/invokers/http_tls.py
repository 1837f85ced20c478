"""Owns TLS towards a function's URL: the authorities to trust, and the certificate that the daemon shows.

Certificates live for hours where something renews them, so the files are read again when they change. A renewal may write the
certificate and its key one after the other. While they do not belong together, or a file cannot be read, what was read before
stays in force. A new context is used for new connections; unused ones to the server are closed within seconds anyway.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from adapters.changing_files import ChangingFiles, content_of, remedy_of
from adapters.invokers.http_failures import unshaken
from adapters.invokers.http_settings import HttpSettings
from adapters.private_files import exposure
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.domain.findings import Finding, Severity
from poller.output.log_fields import EVENT
from poller.start_folder import from_start_folder

HTTPS_PORT = 443
SHAKE_S_MAX = 5.0
"""How long a handshake may take in a live check."""
ALERT_S_MAX = 1.0
"""How long a live check waits for the alert of a server that does not take the certificate: in TLS 1.3 it comes after the handshake."""
FILE_BYTES_MAX = 4 * 1024 * 1024
"""Of a file of certificates; the authorities of a whole system have less than a quarter of a megabyte."""
REFUSED = "certificate_refused"
RENEWED = "certificate_renewed"
EXPOSED = "file_exposed"
"""Events of the log."""
KEPT = "what was read before stays in force"
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")
_REFUSED_BY_SERVER = ("ALERT_", "_ALERT")
"""What the library's names of errors have that are a message of the server."""

log = logging.getLogger("poller.invokers")


class Tls:
    """What the connections of one function are made with."""

    def __init__(self, settings: HttpSettings) -> None:
        """Reads the files; raises InvalidConfiguration with the remedy."""
        self._settings = settings
        self._files = ChangingFiles(list(_files(settings).values()), bytes_max=FILE_BYTES_MAX)
        self._files.changed()
        self._context = context_of(settings)
        key = _key(settings)
        if key and (wrong := exposure(key[1].stat())):
            log.warning("%s: %s", _place(settings, key[0]), wrong, extra={EVENT: EXPOSED})

    def context(self) -> ssl.SSLContext | bool:
        """The context for the next call, of the files as they are now, or as they were last if they cannot be used now."""
        if self._files.changed():
            try:
                self._context = context_of(self._settings)
            except InvalidConfiguration as error:
                log.error("%s; %s", " | ".join(error.problems), KEPT, extra={EVENT: REFUSED})
            else:
                log.info(
                    "functions.%s: certificates read again", self._settings.function, extra={EVENT: RENEWED}
                )
        return self._context


def context_of(settings: HttpSettings) -> ssl.SSLContext | bool:
    """Returns a context of the files as they are now; True or False if the settings name none. Raises InvalidConfiguration."""
    found = tls_errors(settings)
    if found:
        raise InvalidConfiguration(
            [f"{_place(settings, each.field)}: {each.wrong}; {each.remedy}" for each in found]
        )
    try:
        return _context(settings)
    except (OSError, ValueError) as error:
        # The files were right a moment ago.
        place = f"functions.{settings.function}"
        raise InvalidConfiguration([f"{place}: {type(error).__name__}; {KEPT}"]) from None


def tls_errors(settings: HttpSettings) -> list[FieldError]:
    """Returns what is wrong with the files of certificates. What can be read, and is wrong, is wrong on every machine."""
    found = [*_authority_errors(settings), *_unreadable(settings)]
    return found or _pair_errors(settings)


def server_refused(error: BaseException) -> str:
    """Returns the alert by which the server refused the connection, as when it wants another certificate; empty if it did not.

    In TLS 1.3 it comes after the request was sent. The server has not seen the request then.
    """
    for each in (error, error.__cause__, error.__context__, getattr(error, "os_error", None)):
        if isinstance(each, ssl.SSLError) and any(part in (each.reason or "") for part in _REFUSED_BY_SERVER):
            return each.reason.lower().replace("_", " ")
    return ""


async def shaken(url: str, context: ssl.SSLContext | bool) -> Finding:
    """Whether the server at a URL takes a connection with TLS; no request is sent."""
    parts = urlsplit(url)
    remedy = (
        "look at ca_file and client_cert_file, and at the server's certificate (docs/use/http-functions.md)"
    )
    try:
        async with asyncio.timeout(SHAKE_S_MAX):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or HTTPS_PORT, ssl=_made(context)
            )
        try:
            async with asyncio.timeout(ALERT_S_MAX):
                await reader.read(1)
        except TimeoutError:
            pass
        finally:
            writer.close()
    except (OSError, TimeoutError) as error:
        return Finding("TLS", Severity.PROBLEM, unshaken(error, url), remedy)
    return Finding("TLS", Severity.OK)


def _made(context: ssl.SSLContext | bool) -> ssl.SSLContext:
    """The context that the HTTP library makes where the settings name no files."""
    if isinstance(context, ssl.SSLContext):
        return context
    made = ssl.create_default_context()
    if not context:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _context(settings: HttpSettings) -> ssl.SSLContext | bool:
    if not _files(settings):
        return settings.verify_tls
    authorities = from_start_folder(settings.ca_file) if settings.ca_file and settings.verify_tls else None
    context = ssl.create_default_context(cafile=authorities)
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.client_cert_file:
        key = from_start_folder(settings.client_key_file) if settings.client_key_file else None
        # Without a function for the pass phrase, the library would ask for it on the terminal.
        context.load_cert_chain(from_start_folder(settings.client_cert_file), key, password=_no_pass_phrase)
    return context


def _no_pass_phrase() -> str:
    raise ValueError("encrypted")


def _files(settings: HttpSettings) -> dict[str, Path]:
    """The files that count, by setting."""
    named = {
        "ca_file": settings.ca_file if settings.verify_tls else None,
        "client_cert_file": settings.client_cert_file,
        "client_key_file": settings.client_key_file,
    }
    return {name: from_start_folder(path) for name, path in named.items() if path}


def _key(settings: HttpSettings) -> tuple[str, Path] | None:
    """The file with the private key, and the setting that names it."""
    files = _files(settings)
    for name in ("client_key_file", "client_cert_file"):
        if name in files:
            return name, files[name]
    return None


def _place(settings: HttpSettings, field: str) -> str:
    return f"functions.{settings.function}.{field}: {getattr(settings, field)!r}"


def _authority_errors(settings: HttpSettings) -> list[FieldError]:
    if "ca_file" not in _files(settings):
        return []
    remedy = "name a readable PEM file of certificates"
    try:
        content_of(_files(settings)["ca_file"], bytes_max=FILE_BYTES_MAX)
        ssl.create_default_context(cafile=_files(settings)["ca_file"])
    except (OSError, ValueError) as error:
        # A file that can be read but has no certificates is wrong on every machine.
        here = not isinstance(error, ssl.SSLError)
        return [FieldError("ca_file", type(error).__name__, remedy, here=here)]
    return []


def _unreadable(settings: HttpSettings) -> list[FieldError]:
    found = []
    for name in ("client_cert_file", "client_key_file"):
        if name not in _files(settings):
            continue
        try:
            content_of(_files(settings)[name], bytes_max=FILE_BYTES_MAX)
        except OSError as error:
            found.append(FieldError(name, f"{error.strerror}", remedy_of(error), here=True))
        except ValueError:
            found.append(FieldError(name, "is no path", "write the path of a file"))
    return found


def _pair_errors(settings: HttpSettings) -> list[FieldError]:
    """What is wrong with a certificate and its key, whose files can be read."""
    key = _key(settings)
    if key is None:
        return []
    field, path = key
    certificate, _ = content_of(_files(settings)["client_cert_file"], bytes_max=FILE_BYTES_MAX)
    content, _ = content_of(path, bytes_max=FILE_BYTES_MAX)
    if _CERTIFICATE not in certificate:
        return [
            FieldError("client_cert_file", "has no certificate in PEM", "name a PEM file that begins with it")
        ]
    if _KEY not in content:
        remedy = (
            "name the PEM file of the key"
            if field == "client_key_file"
            else "name its key in client_key_file"
        )
        return [FieldError(field, "has no private key in PEM", remedy)]
    if any(mark in content for mark in _ENCRYPTED):
        return [
            FieldError(field, "the key has a pass phrase", "remove it with `openssl pkey -in KEY -out NEW`")
        ]
    try:
        _context(settings)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return [
                FieldError(field, "is not the key of client_cert_file", "name the key that belongs to it")
            ]
        return [FieldError(field, "certificate or key cannot be read as PEM", "make the files anew")]
    return []
