"""Owns calls of AWS as somebody would write them who needs no more: aiohttp, a SigV4 signature by hand and orjson."""

import hashlib
import hmac
import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

REGION = "eu-west-1"


class SignedCalls:
    """Calls one service at one URL. `service` is its name in signatures."""

    def __init__(self, session: aiohttp.ClientSession, url: str, service: str) -> None:
        self._session = session
        self._url = url
        self._host = urlsplit(url).netloc
        self._service = service
        self._key_of: tuple[str, bytes] = ("", b"")

    async def call(self, target: str, parameters: dict[str, Any]) -> Any:
        """One operation of AWS's JSON protocol, such as `AmazonSQS.ReceiveMessage`."""
        body = orjson.dumps(parameters)
        headers = self._signed("/", body, {"x-amz-target": target})
        headers["Content-Type"] = "application/x-amz-json-1.1"
        return orjson.loads(await self._posted(self._url, body, headers))

    async def post(self, path: str, body: bytes) -> bytes:
        """One POST to a path, as Lambda's Invoke is one."""
        return await self._posted(f"{self._url}{path}", body, self._signed(path, body, {}))

    async def _posted(self, url: str, body: bytes, headers: dict[str, str]) -> bytes:
        async with self._session.post(url, data=body, headers=headers) as response:
            assert response.status == 200
            return await response.read()

    def _signed(self, path: str, body: bytes, more: dict[str, str]) -> dict[str, str]:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        day = moment[:8]
        headers = {"x-amz-date": moment, **more}
        names = ";".join(("host", *headers))
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = f"POST\n{path}\n\nhost:{self._host}\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{day}/{REGION}/{self._service}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        signature = hmac.digest(self._key(day), text.encode(), "sha256").hex()
        return {
            **headers,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}",
        }

    def _key(self, day: str) -> bytes:
        if self._key_of[0] != day:
            key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
            for part in (day, REGION, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key_of = (day, key)
        return self._key_of[1]
