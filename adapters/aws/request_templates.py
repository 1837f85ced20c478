"""Owns the few AWS operations that run all the time, without what the library costs on each call.

The library stays in charge. The first call for each stream, queue or function goes through it, and shows where and how it is sent;
later ones repeat that request with another body, date and signature. Credentials are the library's and refreshed by it, the
connections with their proxies, authorities and time limits are the library's, and an answer that is no success is
given to the library's own parser. A request that cannot be repeated exactly, because it is signed in another way, is
left to the library for ever.
"""

import asyncio
import hashlib
import hmac
import itertools
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import orjson
from aiobotocore.parsers import AioResponseParserFactory
from botocore import xform_name
from botocore.exceptions import NoCredentialsError

from adapters.aws.gated_answers import send_gated
from adapters.aws.raw_http import FAILURE, Answer, RawEndpoint

RECIPES_MAX = 10_000
"""Streams, queues or functions whose requests are remembered; beyond that the library makes them."""
_DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_ALGORITHM = "AWS4-HMAC-SHA256"
_TOKEN = "X-Amz-Security-Token"
_DEFAULT_PORTS = {"http": 80, "https": 443}
TRACE = "X-Amzn-Trace-Id"
"""The header that continues a trace. AWS leaves it out of signatures, so that each call may have its own."""
_FRESH = frozenset(
    {
        "authorization",
        "x-amz-date",
        "x-amz-security-token",
        "content-length",
        "amz-sdk-invocation-id",
        TRACE.lower(),
    }
)
"""Headers that are made anew for each call; all others are repeated."""


def decoded[T](decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """An answer's body as the decoder's type; raises ValueError when it is anything else.

    Lone surrogates are valid in AWS's JSON, but msgspec refuses them; the standard library reads what has some.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(body), type=decoder.type)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Credentials at the moment of one call."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)


@dataclass(slots=True)
class Request:
    """A request as far as the library's HTTP session looks at it."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    stream_output: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class RequestTemplate:
    """How the requests of one operation on one stream, queue or function are sent."""

    method: str
    url: str
    host: str
    path: str
    """As it is signed, which escapes it once more than the URL does."""
    query: str
    headers: Mapping[str, str]
    signed: tuple[str, ...]
    """Names of signed headers, lower case and sorted; without the token's."""
    scope: str
    """Region, service and end of the credential scope."""
    line: RawEndpoint | None = None
    """How they are sent without the library's help; None where they need it."""

    @classmethod
    def of(cls, request: Any) -> "RequestTemplate | None":
        """The recipe of a request that the library prepared; None when its signature is of another kind."""
        headers = {name: _text(value) for name, value in request.headers.items()}
        parts = urlsplit(request.url)
        fields = _fields(headers.get("Authorization", ""))
        scope = fields.get("Credential", "").split("/")
        if len(scope) < 5:
            return None
        kept = {name: value for name, value in headers.items() if name.lower() not in _FRESH}
        names = [name for name in fields.get("SignedHeaders", "").split(";") if name != _TOKEN.lower()]
        return cls(
            method=request.method,
            url=request.url,
            host=_host(parts.scheme, parts.netloc, parts.port),
            path=quote(parts.path or "/", safe="/~"),
            query="&".join(sorted(parts.query.split("&"))),
            headers=kept,
            signed=tuple(sorted(names)),
            scope="/".join(scope[-3:]),
        )

    def signing(self, secrets: Secrets, moment: str, key: bytes) -> "TemplateSigner":
        """What signs the requests of one second."""
        values = {name.lower(): value.strip() for name, value in self.headers.items()}
        values |= {"host": self.host, "x-amz-date": moment}
        headers = {"X-Amz-Date": moment}
        names = list(self.signed)
        if secrets.token:
            headers[_TOKEN] = secrets.token
            values[_TOKEN.lower()] = secrets.token.strip()
            names = sorted([*names, _TOKEN.lower()])
        lines = "\n".join([f"{name}:{values.get(name, '')}" for name in names])
        listed = ";".join(names)
        scope = f"{moment[:8]}/{self.scope}"
        canonical = f"{self.method}\n{self.path}\n{self.query}\n{lines}\n\n{listed}\n"
        line = self.line if f"{secrets.access_key}{secrets.token or ''}".isprintable() else None
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return TemplateSigner(
            recipe=self,
            line=line,
            headers={**self.headers, **headers},
            head="" if line is None else f"{line.head}{head}Authorization: ",
            canonical=hashlib.sha256(canonical.encode()),
            text=hmac.new(key, f"{_ALGORITHM}\n{moment}\n{scope}\n".encode(), "sha256"),
            credential=f"{_ALGORITHM} Credential={secrets.access_key}/{scope}, SignedHeaders={listed}, Signature=",
        )


@dataclass(frozen=True, slots=True)
class TemplateSigner:
    """Signature Version 4 (AWS's General Reference) of one recipe within one second; only bodies differ."""

    recipe: RequestTemplate
    line: RawEndpoint | None
    headers: Mapping[str, str] = field(repr=False)
    head: str = field(repr=False)
    """A request's head as it is written, up to the Authorization header."""
    canonical: "hashlib._Hash"
    """The digest of the canonical request, up to the digest of the body."""
    text: hmac.HMAC
    """The signature of what is signed, up to the digest of the canonical request."""
    credential: str
    """The Authorization header up to the signature."""
    beginning: str = field(default_factory=lambda: str(uuid.uuid4())[:-12])
    count: Iterator[int] = field(default_factory=itertools.count)

    def invocation_id(self) -> str:
        """What AWS's support may know a request by: a UUID of its own, by a random beginning and a count."""
        return f"{self.beginning}{next(self.count):012x}"

    def authorization(self, body: bytes) -> str:
        """The Authorization header of a request with this body."""
        canonical, text = self.canonical.copy(), self.text.copy()
        canonical.update(hashlib.sha256(body).hexdigest().encode())
        text.update(canonical.hexdigest().encode())
        return self.credential + text.hexdigest()

    def message(self, body: bytes, *, trace: str | None = None) -> bytes:
        """A signed request with this body as it is written. `trace`: a trace header, without characters that end a line."""
        traced = "" if trace is None else f"{TRACE}: {trace}\r\n"
        head = (
            f"{self.head}{self.authorization(body)}\r\n{traced}"
            f"amz-sdk-invocation-id: {self.invocation_id()}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def request(self, body: bytes) -> Request:
        """The same for the library's HTTP session."""
        headers = {
            **self.headers,
            "Authorization": self.authorization(body),
            "amz-sdk-invocation-id": self.invocation_id(),
            "Content-Length": str(len(body)),
        }
        return Request(self.recipe.method, self.recipe.url, headers, body)


class SigningKeys:
    """The key that signs on one day in one scope, derived from the secret once."""

    def __init__(self) -> None:
        self._of: tuple[str, str, str] | None = None
        self._key = b""

    def key(self, secret_key: str, moment: str, scope: str) -> bytes:
        """The derived key."""
        wanted = (secret_key, moment[:8], scope)
        if wanted != self._of:
            key = f"AWS4{secret_key}".encode()
            for part in (moment[:8], *scope.split("/")):
                key = hmac.digest(key, part.encode(), "sha256")
            self._of, self._key = wanted, key
        return self._key


class FastOperation:
    """One operation of one client. `named`: the parameter by which the library chooses where to send it; None for none."""

    def __init__(self, client: Any, operation: str, *, named: str | None) -> None:
        self._client = client
        self._operation = operation
        self._named = named
        self._ordinary = getattr(client, xform_name(operation))
        self._signer: tuple[Any, dict[str, Any]] | None = None
        self._recipes: dict[str, RequestTemplate | None] = {}
        self._keys = SigningKeys()
        self._learning: dict[asyncio.Task[Any] | None, tuple[str, str | None]] = {}
        """Who has the library send a request that is to be learnt, its name, and its trace header. Another task's is another one's."""
        self._signings: dict[RequestTemplate, TemplateSigner] = {}
        self._second = 0
        service = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register(f"before-sign.{service}.{operation}", self._note_signer)
        client.meta.events.register_last(f"before-send.{service}.{operation}", self._learn)

    async def __call__(self, parameters: Mapping[str, Any]) -> bytes:
        """The body of a success; raises what the client's own method raises."""
        name = str(parameters[self._named]) if self._named is not None else ""
        recipe = self._recipes.get(name)
        if recipe is None:
            with self.learning(name):
                return _written(await self._ordinary(**parameters))
        answer = await self._send(await self._signing(recipe), orjson.dumps(parameters))
        if answer.status >= FAILURE:
            raise await self._error(answer)
        return answer.body

    async def repeat(
        self, name: str, body: bytes, *, bytes_max: int, trace: str | None = None
    ) -> Answer | None:
        """Repeats the request that was learnt under a name, with another body; a success, or None where the library is to send.

        `trace` is this call's trace header. Of an answer with more than `bytes_max` bytes no more is read. Raises what the client's
        own method raises.
        """
        recipe = self._recipes.get(name)
        if recipe is None or recipe.line is None:
            return None
        signing = await self._signing(recipe)
        if signing.line is None:
            return None
        answer = await signing.line.post(signing.message(body, trace=trace), bytes_max=bytes_max)
        if answer is not None and answer.status >= FAILURE:
            raise await self._error(answer)
        return answer

    @contextmanager
    def learning(self, name: str, *, trace: str | None = None) -> Iterator[None]:
        """How the library sends the request that it is asked for inside is kept under this name. It gets the trace header."""
        task = asyncio.current_task()
        assert task is not None, "requests are sent by tasks"
        self._learning[task] = (name, trace)
        try:
            yield
        finally:
            del self._learning[task]

    async def _send(self, signing: TemplateSigner, body: bytes) -> Answer:
        if signing.line is not None:
            answer = await signing.line.post(signing.message(body))
            if answer is not None:
                return answer
        request = signing.request(body)
        response = await send_gated(self._http, request) or await self._http.send(request)
        return Answer(response.status_code, response.raw.raw_headers, await response.content)

    @property
    def _http(self) -> Any:
        """The HTTP session, the only part of the client that has no public name."""
        return self._client._endpoint.http_session

    async def _signing(self, recipe: RequestTemplate) -> TemplateSigner:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._signings.clear()
        signing = self._signings.get(recipe)
        if signing is None:
            secrets = await self._secrets()
            moment = time.strftime(_DATE_FORMAT, time.gmtime(second))
            key = self._keys.key(secrets.secret_key, moment, recipe.scope)
            signing = recipe.signing(secrets, moment, key)
            if second == self._second:
                self._signings[recipe] = signing
        return signing

    async def _secrets(self) -> Secrets:
        """What the library would sign with now, refreshed by it when that is due."""
        assert self._signer is not None, "a recipe without a signer"
        signer, chosen = self._signer
        found = (await signer.get_auth_instance(**chosen)).credentials
        if found is None:
            raise NoCredentialsError
        return Secrets(found.access_key, found.secret_key, found.token)

    async def _error(self, answer: Answer) -> Exception:
        """The exception that the client's own method would raise for this answer."""
        service = self._client.meta.service_model
        operation = service.operation_model(self._operation)
        parser = AioResponseParserFactory().create_parser(service.resolved_protocol)
        said = {
            "headers": answer.headers,
            "status_code": answer.status,
            "context": {"operation_name": self._operation},
            "body": answer.body,
        }
        parsed = await parser.parse(said, operation.output_shape)
        named = parsed.get("Error", {})
        kind = self._client.exceptions.from_code(named.get("QueryErrorCode") or named.get("Code"))
        error: Exception = kind(parsed, self._operation)
        return error

    def _note_signer(
        self, *, request_signer: Any, signing_name: str, region_name: str, signature_version: Any, **_: object
    ) -> None:
        chosen = {
            "signing_name": signing_name,
            "region_name": region_name,
            "signature_version": signature_version,
        }
        self._signer = (request_signer, chosen)

    async def _learn(self, *, request: Any, **_: object) -> Any | None:
        """Keeps how the library sends this request, if it can be signed here to the same effect; then adds its trace header.

        Returns the answer if it has to wait for room in memory, and None where the library is to send, as for another one's request.
        """
        if (found := self._learning.get(asyncio.current_task())) is None:
            return None
        name, trace = found
        if name not in self._recipes and len(self._recipes) < RECIPES_MAX:
            await self._keep(name, request)
        if trace is not None:
            request.headers[TRACE] = trace
        return await send_gated(self._http, request)

    async def _keep(self, name: str, request: Any) -> None:
        recipe = RequestTemplate.of(request)
        if recipe is not None and self._signer is not None and await self._agrees(recipe, request):
            line = await RawEndpoint.to(self._http, recipe.method, recipe.url, recipe.headers)
            self._recipes[name] = replace(recipe, line=line)
        else:
            self._recipes[name] = None

    async def _agrees(self, recipe: RequestTemplate, request: Any) -> bool:
        """Whether our signature of a request is the library's."""
        secrets = await self._secrets()
        moment = _text(request.headers.get("X-Amz-Date", ""))
        body = request.body.encode() if isinstance(request.body, str) else bytes(request.body)
        key = self._keys.key(secrets.secret_key, moment, recipe.scope)
        ours = recipe.signing(secrets, moment, key).authorization(body)
        return hmac.compare_digest(ours, _text(request.headers.get("Authorization", "")))


def _written(reply: Mapping[str, Any]) -> bytes:
    """The library's answer as JSON again."""
    members = {name: value for name, value in reply.items() if name != "ResponseMetadata"}
    return json.dumps(members, separators=(",", ":")).encode()


def _fields(authorization: str) -> dict[str, str]:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != _ALGORITHM:
        return {}
    pairs = [each.strip().partition("=") for each in rest.split(",")]
    return {name: value for name, _, value in pairs}


def _host(scheme: str, netloc: str, port: int | None) -> str:
    """The Host header: without a default port, without a user."""
    bare = netloc.rpartition("@")[2]
    return bare.rpartition(":")[0] if port is not None and port == _DEFAULT_PORTS.get(scheme) else bare


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
