"""Owns who may change things: signatures on Lambda's paths, bearer tokens on the others (reads are open)."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from adapters.control import sigv4
from adapters.control.faults import Denied, Kind
from adapters.control.replays import Full, Replays
from adapters.control.secret_files import SecretFile
from adapters.control.settings import ApiSettings
from poller.control import Fault, Refused
from poller.ports import Clock

REPLAYED = "The signature was used before; sign the request anew."
CROWDED = "More signed requests than can be remembered; wait a few minutes."
BROWSER = "Changes without a credential are not for web pages; send no Origin header."
NO_BEARER = (
    "changes need a credential: send the header Authorization: Bearer TOKEN with a token of api.tokens_file"
)


class Unauthorized(Exception):
    """A change without a valid bearer token."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets changes pass. `keys` and `tokens` None: there are no such credentials. `everybody`: none is needed."""

    clock: Clock
    replays: Replays
    keys: SecretFile | None = None
    tokens: SecretFile | None = None
    everybody: bool = False

    async def signed_body(self, request: web.Request) -> bytes:
        """The body of a change that is signed by a configured access key; raises Denied and Refused."""
        if self.everybody:
            if from_browser(request):
                raise Denied(Kind.DENIED, BROWSER)
            return await request.read()
        head = _sent(request, b"")
        claimed = sigv4.claim(head)
        # A stranger's body is not even read.
        sigv4.secret_for(head, claimed, self._keys(), now=self.clock.now())
        sent = _sent(request, await request.read())
        now = self.clock.now()
        proof = sigv4.proof(sent, claimed, self._keys(), now=now)
        try:
            fresh = self.replays.admit(proof, _call(sent), now=now)
        except Full:
            raise Refused(Fault.THROTTLED, CROWDED) from None
        if not fresh:
            raise Denied(Kind.SIGNATURE, REPLAYED)
        return sent.body

    def _keys(self) -> Mapping[str, str]:
        return self.keys.secrets() if self.keys is not None else {}

    def check_bearer(self, request: web.Request) -> None:
        """Raises Unauthorized without a configured token."""
        if self.everybody:
            if from_browser(request):
                raise Unauthorized(BROWSER)
            return
        given = request.headers.getall("Authorization", [])
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        tokens = self.tokens.secrets() if self.tokens is not None else {}
        if scheme.lower() != "bearer" or not known(token.strip(), tokens):
            raise Unauthorized(NO_BEARER)


def guard(settings: ApiSettings, clock: Clock) -> Guard:
    """The guard that the settings describe; raises InvalidConfiguration if a file is no good."""
    keys, tokens = settings.access_keys_file, settings.tokens_file
    return Guard(
        clock,
        Replays(),
        SecretFile(keys, field="access_keys_file") if keys else None,
        SecretFile(tokens, field="tokens_file") if tokens else None,
        everybody=settings.allow_unauthenticated,
    )


def known(token: str, tokens: Mapping[str, str]) -> bool:
    """Whether a token is among the configured ones; the time that this takes says nothing of which, or how nearly."""
    given = _digest(token)
    matches = [hmac.compare_digest(given, _digest(each)) for each in tokens.values()]
    return any(matches)


def from_browser(request: web.Request) -> bool:
    """Whether a web page sent this; the pages of other sites must not use that this machine trusts itself."""
    return "Origin" in request.headers


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
    """Id and try of the call as SDKs send them; empty if the client sends no id."""
    call = sent.all("amz-sdk-invocation-id")
    return "\n".join(call + sent.all("amz-sdk-request")) if call else ""
