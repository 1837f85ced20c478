"""Owns who may change mappings: Lambda's paths need a signature, the others a bearer token. Reads are open."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from adapters.control.access import sigv4
from adapters.control.access.audit import Unauthorized, set_sender
from adapters.control.access.credential_files import SecretFile, file_errors
from adapters.control.access.replay_cache import Full, ReplayCache
from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.settings import ApiSettings
from poller.config_errors.error_messages import FieldError
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.ports import Clock

REPLAYED = "The signature was used before; sign the request anew."
TOO_MANY_SIGNED = "More signed requests than can be remembered; wait a few minutes."
NO_KEYS = (
    "(Nothing can be changed here: the daemon's configuration has no api.access_keys_file; docs/use/api.md.)"
)
"""Added to AWS's text, which alone would make people look for a mistake in their credentials."""
NO_TOKENS = (
    "changes need a credential, and the daemon's configuration names none: set api.tokens_file and send the header "
    "`Authorization` with `Bearer TOKEN`, where TOKEN is one of that file"
)
NO_BEARER = "changes need a credential: send the header `Authorization` with `Bearer TOKEN`, where TOKEN is one of api.tokens_file"


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks the credentials of changes.

    `keys` and `tokens` are None if no such credentials are configured. `everybody`: no credential is needed.
    """

    clock: Clock
    replays: ReplayCache
    keys: SecretFile | None = None
    tokens: SecretFile | None = None
    everybody: bool = False

    async def signed_body(self, request: web.Request) -> bytes:
        """Reads the body of a change and checks its signature; raises RequestRejected and ApiError."""
        if self.everybody:
            return await request.read()
        head = _sent(request, b"")
        try:
            claimed = sigv4.claim(head)
            # Checked before the body is read, so that nobody without a key can make us read one.
            sigv4.secret_for(head, claimed, self._keys(), now=self.clock.now())
        except RequestRejected as denied:
            if self.keys is None:
                raise RequestRejected(denied.kind, f"{denied.text} {NO_KEYS}") from None
            raise
        sent = _sent(request, await request.read())
        now = self.clock.now()
        proof = sigv4.proof(sent, claimed, self._keys(), now=now)
        set_sender(request, claimed.key)
        try:
            fresh = self.replays.admit(proof, _call(sent), now=now)
        except Full:
            raise ApiError(ApiErrorType.THROTTLED, TOO_MANY_SIGNED) from None
        if not fresh:
            raise RequestRejected(RejectionType.SIGNATURE, REPLAYED)
        return sent.body

    def _keys(self) -> Mapping[str, str]:
        return self.keys.secrets() if self.keys is not None else {}

    def check_bearer(self, request: web.Request) -> None:
        """Raises Unauthorized if the request has none of the configured tokens."""
        if self.everybody:
            return
        given = request.headers.getall("Authorization", [])
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        tokens = self.tokens.secrets() if self.tokens is not None else {}
        name = token_name(token.strip(), tokens) if scheme.lower() == "bearer" else None
        if name is None:
            raise Unauthorized(NO_BEARER if self.tokens is not None else NO_TOKENS)
        set_sender(request, name)


def guard(settings: ApiSettings, clock: Clock) -> Guard:
    """Makes the guard that the settings describe; raises InvalidConfiguration if a credential file cannot be used."""
    files = {field: SecretFile(path, field=field) for field, path in _files(settings).items()}
    return Guard(
        clock,
        ReplayCache(),
        files.get("access_keys_file"),
        files.get("tokens_file"),
        everybody=settings.allow_unauthenticated,
    )


def setting_errors(settings: ApiSettings) -> list[FieldError]:
    """Returns the errors for which `guard` would refuse the settings."""
    return [
        each for field, path in _files(settings).items() for each in file_errors(path, field=f"api.{field}")
    ]


def _files(settings: ApiSettings) -> dict[str, Path]:
    configured = {"access_keys_file": settings.access_keys_file, "tokens_file": settings.tokens_file}
    return {field: path for field, path in configured.items() if path}


def token_name(token: str, tokens: Mapping[str, str]) -> str | None:
    """Returns the name of a configured token, or None. The time it takes reveals neither which token matches nor how closely."""
    given = _digest(token)
    matches = [name for name, each in tokens.items() if hmac.compare_digest(given, _digest(each))]
    return matches[0] if matches else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _sent(request: web.Request, body: bytes) -> sigv4.Request:
    return sigv4.Request(
        method=request.method,
        target=request.raw_path,
        headers=tuple(request.headers.items()),
        body=body,
    )


def _call(sent: sigv4.Request) -> str:
    """Returns the id and the attempt of the call as SDKs send them; empty if the client sends no id."""
    call = sent.all("amz-sdk-invocation-id")
    return "\n".join(call + sent.all("amz-sdk-request")) if call else ""
