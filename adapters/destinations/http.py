"""Owns the HTTP destination: documents with the whole event or call in them, POSTed to a URL. A status 2xx means delivered.

The header `Idempotency-Key` is the id of the notice or call, which stays the same when its document is sent again. Redirects are
not followed.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.permission_checks import connected, untried
from adapters.bounded_answers import bounded
from adapters.destinations.messages import no_dead_letter
from poller.config.field_types import web_url
from poller.config_errors.meant_arns import aws_queue_arn
from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.findings import Finding
from poller.domain.functions.call_notices import CallNotice
from poller.domain.invocations import Notice, with_payload
from poller.plugins import Environment, Plugin

TOTAL_S_MAX = 30.0
CONNECT_S_MAX = 5.0
CONNECTIONS_MAX = 20
STATUSES: Mapping[int, type[PortError]] = MappingProxyType(
    {
        401: AccessDenied,
        403: AccessDenied,
        404: ResourceMissing,
        410: ResourceMissing,
        429: ServiceThrottled,
    }
)
"""The error for a status. Every other status that is not 2xx is ServiceUnavailable."""


def _usable_url(text: str) -> str:
    url = web_url(text, credentials="put a proxy that adds them in front")
    if arn := aws_queue_arn(text):
        raise ValueError(f"is the URL of a queue, which takes no documents; write its ARN, {arn}")
    return url


class HttpSettings(BaseModel):
    """`arn` is a URL here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_usable_url)]


class HttpDestination:
    """POSTs notices to one URL."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._host = urlsplit(url).hostname

    async def send(self, notice: Notice) -> None:
        """Posts the document; raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""
        await self._post(with_payload(notice), notice.notice_id)

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        """Posts the whole document of a call; raises as `send`."""
        if dead_letter:
            raise no_dead_letter(f"a URL of {self._host}")
        await self._post(notice.documents[0], notice.call)

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the server accepts connections; posts nothing."""
        return [await connected(self._url), *untried(("POST",), "a document would arrive")]

    async def _post(self, document: bytes, key: str) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        try:
            async with self._session.post(
                self._url, data=document, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise ServiceUnavailable(f"http POST to {self._host}: {type(error).__name__}") from error
        if not 200 <= status <= 299:
            raise STATUSES.get(status, ServiceUnavailable)(f"http POST to {self._host}: status {status}")


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=bounded(aiohttp.TCPConnector(limit=CONNECTIONS_MAX)),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "poller"},
        # Nothing reads the bodies, and a status counts in whatever encoding a body comes.
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=TOTAL_S_MAX, sock_connect=CONNECT_S_MAX),
    ) as session:
        yield session


@asynccontextmanager
async def open_http(settings: HttpSettings, env: Environment) -> AsyncIterator[HttpDestination]:
    """Yields the destination. It connects with the first notice."""
    yield HttpDestination(await env.shared.get("destinations.http", _session), settings.arn)


plugin = Plugin("http", HttpSettings, open_http)
