"""Owns who may do what: on Lambda's paths a signature shows who it is, on the others a bearer token, which has a role.

An access key is an admin's. Reads need a credential of any role, unless they are open to everybody.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from adapters.control.access import sigv4
from adapters.control.access.audit import Forbidden, Unauthorized, set_sender
from adapters.control.access.credential_entries import Token, read_keys, read_tokens
from adapters.control.access.credential_files import SecretFile, file_errors
from adapters.control.access.replay_cache import Full, ReplayCache
from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.settings import ApiSettings, reads_of
from poller.config_errors.error_messages import FieldError
from poller.domain.access import Reads, Role
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.telemetry.labels import Listener, RefusedFor
from poller.ports import Clock
from poller.refused_requests import Strangers

REPLAYED = "The signature was used before; sign the request anew."
TOO_MANY_SIGNED = "More signed requests than can be remembered; wait a few minutes."
NO_KEYS = "(Nothing can be called or changed here: the daemon's configuration has no api.access_keys_file; docs/use/api.md.)"
NO_KEYS_TO_READ = "(Reads need a signature here, and the daemon's configuration has no api.access_keys_file; docs/use/api.md.)"
"""These are added to AWS's text, which alone would make people look for a mistake in their credentials."""
NO_TOKENS = (
    "{what} need a credential, and the daemon's configuration names none: set api.tokens_file and send the header "
    "`Authorization` with `Bearer TOKEN`, where TOKEN is one of that file"
)
NO_BEARER = "{what} need a credential: send the header `Authorization` with `Bearer TOKEN`, where TOKEN is one of api.tokens_file"
_NEEDS = {Role.VIEW: "reads", Role.OPERATE: "operations", Role.ADMIN: "changes"}
"""What needs the role. The texts above begin with it."""
ROLE_TOO_LOW = (
    "this needs the role {needed}, and the token {name} has the role {given}; send the token of another entry of "
    "api.tokens_file, or give this one the role there"
)


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks the credentials of requests. Refused reads are reported to `strangers`.

    `keys` and `tokens` are None if no such credentials are configured. `everybody`: no credential is needed.
    `open_reads`: reads need none.
    """

    clock: Clock
    replays: ReplayCache
    keys: SecretFile[str] | None = None
    tokens: SecretFile[Token] | None = None
    everybody: bool = False
    open_reads: bool = False
    strangers: Strangers = field(default_factory=Strangers)

    async def signed_body(self, request: web.Request) -> bytes:
        """Reads the body of a change and checks its signature; raises RequestRejected and ApiError."""
        if self.everybody:
            return await request.read()
        sent, proof = await self._proven(request, NO_KEYS)
        try:
            fresh = self.replays.admit(proof, _call(sent), now=self.clock.now())
        except Full:
            raise ApiError(ApiErrorType.THROTTLED, TOO_MANY_SIGNED) from None
        if not fresh:
            raise RequestRejected(RejectionType.SIGNATURE, REPLAYED)
        return sent.body

    async def signed_call(self, request: web.Request) -> bytes:
        """As `signed_body`, for the call of a function. Its signature is not remembered, as on Lambda: equal calls are no replay,
        and there may be more of them than are remembered.
        """
        if self.everybody:
            return await request.read()
        sent, _ = await self._proven(request, NO_KEYS)
        return sent.body

    async def check_signed_read(self, request: web.Request) -> None:
        """Checks the signature of a read, if reads need one; raises RequestRejected.

        Signatures of reads are not remembered. Whoever recorded a request could have recorded the answer.
        """
        if self.open_reads:
            return
        try:
            await self._proven(request, NO_KEYS_TO_READ)
        except RequestRejected:
            self.strangers.refused(Listener.PORT, RefusedFor.CREDENTIAL)
            raise

    async def _proven(self, request: web.Request, no_keys: str) -> tuple[sigv4.Request, sigv4.Proof]:
        """Reads a request and checks its signature; raises RequestRejected, with `no_keys` if there is no file of keys."""
        head = _sent(request, b"")
        try:
            claimed = sigv4.claim(head)
            # Checked before the body is read, so that nobody without a key can make us read one.
            sigv4.secret_for(head, claimed, self._keys(), now=self.clock.now())
        except RequestRejected as denied:
            if self.keys is None:
                raise RequestRejected(denied.kind, f"{denied.text} {no_keys}") from None
            raise
        sent = _sent(request, await request.read())
        proof = sigv4.proof(sent, claimed, self._keys(), now=self.clock.now())
        set_sender(request, claimed.key, Role.ADMIN)
        return sent, proof

    def _keys(self) -> Mapping[str, str]:
        return self.keys.entries() if self.keys is not None else {}

    def check_read(self, request: web.Request) -> None:
        """Raises Unauthorized if reads need a token and the request has none of the configured ones."""
        if self.open_reads:
            return
        try:
            self.check_bearer(request, Role.VIEW)
        except Unauthorized:
            self.strangers.refused(Listener.PORT, RefusedFor.CREDENTIAL)
            raise

    def check_bearer(self, request: web.Request, needed: Role) -> None:
        """Raises Unauthorized if the request has none of the configured tokens, and Forbidden if its role does not suffice."""
        if self.everybody:
            return
        name, role = self.holder(request)
        if name is None or role is None:
            lacking = NO_BEARER if self.tokens is not None else NO_TOKENS
            raise Unauthorized(lacking.format(what=_NEEDS[needed]))
        set_sender(request, name, role)
        if not role.includes(needed):
            raise Forbidden(ROLE_TOO_LOW.format(needed=needed, name=name, given=role))

    def holder(self, request: web.Request) -> tuple[str, Role] | tuple[None, None]:
        """Returns the name and the role of the request's bearer token; None for both without one of the configured ones."""
        given = request.headers.getall("Authorization", [])
        scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        tokens = self.tokens.entries() if self.tokens is not None else {}
        name = token_name(text.strip(), tokens) if scheme.lower() == "bearer" else None
        return (None, None) if name is None else (name, tokens[name].role)


def guard(settings: ApiSettings, clock: Clock, strangers: Strangers, *, loopback: bool) -> Guard:
    """Makes the guard that the settings describe; raises InvalidConfiguration if a credential file cannot be used.

    `loopback`: only this machine reaches the server.
    """
    keys, tokens = settings.access_keys_file, settings.tokens_file
    return Guard(
        clock,
        ReplayCache(),
        SecretFile(keys, read_keys, field="access_keys_file") if keys else None,
        SecretFile(tokens, read_tokens, field="tokens_file") if tokens else None,
        everybody=settings.allow_unauthenticated,
        open_reads=settings.allow_unauthenticated or reads_of(settings, loopback=loopback) is Reads.OPEN,
        strangers=strangers,
    )


def file_setting_errors(settings: ApiSettings) -> list[FieldError]:
    """Returns the errors for which `guard` would refuse the settings."""
    keys, tokens = settings.access_keys_file, settings.tokens_file
    found = file_errors(keys, read_keys, field="api.access_keys_file") if keys else []
    return found + (file_errors(tokens, read_tokens, field="api.tokens_file") if tokens else [])


def token_name(token: str, tokens: Mapping[str, Token]) -> str | None:
    """Returns the name of a configured token, or None. The time it takes reveals neither which token matches nor how closely."""
    given = _digest(token)
    matches = [name for name, each in tokens.items() if hmac.compare_digest(given, _digest(each.text))]
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
