"""Owns faults on the way to an emulator: error answers, for every call, that a microburst proxy puts in."""

from collections.abc import Mapping

import aiohttp

from poller.domain.errors import AccessDenied, CursorExpired, PortError, ServiceThrottled, ServiceUnavailable

ANSWERS: Mapping[str, Mapping[type[PortError], tuple[str, int]]] = {
    "kinesis": {
        ServiceThrottled: ("ProvisionedThroughputExceededException", 400),
        ServiceUnavailable: ("InternalFailure", 500),
        AccessDenied: ("AccessDeniedException", 400),
        CursorExpired: ("ExpiredIteratorException", 400),
    },
    "dynamodbstreams": {
        ServiceThrottled: ("LimitExceededException", 400),
        ServiceUnavailable: ("InternalServerError", 500),
        AccessDenied: ("UnrecognizedClientException", 400),
        CursorExpired: ("ExpiredIteratorException", 400),
    },
    "sqs": {
        ServiceThrottled: ("RequestThrottled", 403),
        ServiceUnavailable: ("ServiceUnavailable", 503),
        AccessDenied: ("AccessDenied", 403),
    },
}
"""Service and port error to what AWS answers: code and HTTP status."""


async def answer_with(
    proxy: str, service: str, error: type[PortError], *, operation: str | None = None
) -> None:
    """From now on the proxy answers all calls of `service`, or of one operation, itself, in a way that means `error`."""
    code, status = ANSWERS[service][error]
    which = {"service": service} if operation is None else {"service": service, "operation": operation}
    await _rules(proxy, [{**which, "error": {"code": code, "status": status}}])


async def let_through(proxy: str) -> None:
    """The proxy passes everything on."""
    await _rules(proxy, [])


async def _rules(proxy: str, rules: list[dict[str, object]]) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{proxy}/_microburst/rules", json=rules) as answer,
    ):
        answer.raise_for_status()
