"""Owns how a look at the outside is told: one call tried, and its answer or trouble turned into a finding.

A call that is refused names the permission that is missing as IAM does. The names come from the operation that was refused,
which need not be the one that was tried: a queue's URL is asked for first.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from botocore import xform_name
from botocore.exceptions import ClientError

from adapters.aws.calls import calling
from adapters.aws.clients import code_of
from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.findings import Finding, Severity

STEP_S_MAX = 10.0
"""For one call; a look makes a few of them."""
NOT_ALLOWED = frozenset(
    {
        "403",
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "AuthorizationErrorException",
        "NotAuthorized",
        "UnauthorizedOperation",
    }
)
"""Codes that say that known credentials lack a permission. The other refusals are about credentials or keys."""
ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
        "DeleteMessageBatch": "DeleteMessage",
        "HeadBucket": "ListBucket",
        "Invoke": "InvokeFunction",
    }
)
"""Operations that IAM knows by another name."""
ALLOW = "allow it in the role's policy (docs/operate/iam.md has them all)"
CREDENTIALS = "credentials"

_PORTS = {"http": 80, "https": 443}
_NOTHING: Mapping[str, type[PortError]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Trial[T]:
    """One call: what it means, its answer if it had one, and what the port said if not."""

    finding: Finding
    answer: T | None = None
    error: PortError | None = None
    denied: bool = False
    """Whether just this call's own permission is missing, so that others may still go through."""


async def tried[T](
    action: str, call: Awaitable[T], *, on: str, granted: tuple[type[PortError], ...] = ()
) -> Trial[T]:
    """Awaits `call`, ten seconds at most; `granted` errors come only after the permission was found to be there.

    `action` is its IAM name, `on` the resource's ARN or name.
    """
    try:
        async with asyncio.timeout(STEP_S_MAX):
            answer = await call
    except TimeoutError:
        error: PortError = ServiceUnavailable(f"{action} on {on}: no answer within {STEP_S_MAX:g} s")
    except granted as trouble:
        return Trial(Finding(action, Severity.OK), error=trouble)
    except PortError as trouble:
        error = trouble
    else:
        return Trial(Finding(action, Severity.OK), answer)
    finding = judged(action, error, on=on)
    return Trial(finding, error=error, denied=isinstance(error, AccessDenied) and finding.check == action)


def judged(action: str, error: PortError, *, on: str) -> Finding:
    """What trouble with a call means."""
    match error:
        case AccessDenied():
            return _denied(action, error, on)
        case ResourceMissing():
            text = f"{on}: there is none, or it is hidden from these credentials ({error.reason})"
            return Finding(
                action, Severity.PROBLEM, text, "correct the name, account, region or endpoint, or make it"
            )
        case ServiceThrottled():
            text = f"{action} on {on}: throttled, so that it was not seen to work ({error.reason})"
            return Finding(action, Severity.WARNING, text, "check again later")
        case _:
            return Finding(action, Severity.PROBLEM, error.reason, "is the endpoint right and reachable?")


def _denied(action: str, error: AccessDenied, on: str) -> Finding:
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return Finding(CREDENTIALS, Severity.PROBLEM, error.reason)
    code = code_of(cause)
    if code.upper().startswith("KMS"):
        text, remedy = (
            f"kms:Decrypt on the key of {on}: {code}",
            "allow it in the role's and in the key's policy",
        )
        return Finding("kms:Decrypt", Severity.PROBLEM, text, remedy)
    if code not in NOT_ALLOWED:
        return Finding(
            CREDENTIALS, Severity.PROBLEM, error.reason, "give this process credentials that AWS takes"
        )
    refused = named(action, cause.operation_name)
    return Finding(refused, Severity.PROBLEM, f"{refused} on {on}: not allowed", ALLOW)


def named(action: str, operation: str) -> str:
    """IAM's name for an operation of the service that `action` belongs to."""
    return f"{action.partition(':')[0]}:{ACTIONS.get(operation, operation)}"


def untried(actions: tuple[str, ...], why: str) -> list[Finding]:
    """Findings for what was not tried."""
    return [Finding(action, Severity.UNTRIED, f"{action} was not tried: {why}") for action in actions]


def for_the_check_alone(trial: Trial[Any], unknown: str) -> Finding:
    """The finding of a call that only a check makes: without its permission the daemon may work all the same.

    `unknown` is what then cannot be told.
    """
    if not trial.denied:
        return trial.finding
    text = f"{trial.finding.text}; only this check needs it, {unknown} is not known"
    return replace(trial.finding, grade=Severity.WARNING, text=text)


async def asked(
    client: Any, operation: str, special: Mapping[str, type[PortError]] = _NOTHING, /, **parameters: Any
) -> Any:
    """One call of an AWS client by the operation's name; raises port errors."""
    with calling(f"{client.meta.service_model.service_name} {operation}", special):
        return await getattr(client, xform_name(operation))(**parameters)


async def connected(url: str) -> Finding:
    """Whether somebody takes TCP connections at the host and port of an HTTP URL; nothing is sent."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
    check, place = "connect", f"{host}:{port}"
    try:
        async with asyncio.timeout(STEP_S_MAX):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError, UnicodeError) as error:
        text = f"no connection to {place} ({type(error).__name__})"
        return Finding(check, Severity.PROBLEM, text, "is the address right, and does somebody listen there?")
    writer.close()
    return Finding(check, Severity.OK)
