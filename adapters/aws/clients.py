"""Owns AWS clients, the shape of ARNs, and the one table that turns AWS's trouble into port errors.

Credentials come by AWS's ordinary chain (variables, profile, web identity, container, instance metadata). The engine
retries, so the clients do not.
"""

import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Any

import aiohttp
import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as boto
from botocore.eventstream import ParserError as EventStreamParserError
from botocore.parsers import ResponseParserError
from dateutil.parser import ParserError

from adapters.aws.event_streams import StreamingSession
from adapters.aws.identities import RoleTrouble, session_of
from adapters.bounded_answers import BoundedSession
from poller.domain.arns import ACCOUNT, PARTITION, REGION
from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    InvalidConfiguration,
    PortError,
    PositionTrimmed,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.untrusted import numbers
from poller.domain.untrusted.texts import line_of
from poller.plugins import Environment

CONNECT_S_MAX = 5.0
READ_S_MAX = 30.0
"""Longest silence within an answer; an SQS long poll is silent for 20 s."""
CONNECTIONS_MAX = 200
"""Open connections per client; 1,000 busy shards at 4.4 reads a second of 40 ms need 180."""
KEEP_ALIVE_S = 50.0
"""Idle connections are dropped before AWS's side drops them at about a minute."""
_PROBES: Mapping[str, int] = MappingProxyType(
    {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
)
"""A silent connection is probed after a minute, and given up when the other side has not answered for another one."""
CODE_CHARS_MAX = 80
STATUS_MAX = 999
RAW_SERVICES = frozenset({"kinesis", "dynamodbstreams", "sqs"})
"""Services whose answers keep blobs as base64 text and timestamps as numbers.

Events want exactly this form. Decoding 10,000 records only to encode them again costs more than all the rest.
"""
_QUERY_PREFIX = "AWS.SimpleQueueService."


async def client(
    env: Environment,
    service: str,
    region: str | None,
    *,
    purpose: str = "",
    connections_max: int = CONNECTIONS_MAX,
    read_s_max: float = READ_S_MAX,
    streams: bool = False,
) -> Any:
    """The daemon's client of one service in one region (None: the settings', else the AWS variables'), as the environment's identity.

    Clients with another `purpose` have connections of their own. With `streams` answers may be event streams. Answers of RAW_SERVICES have blobs as base64 text and
    timestamps as sent. Raises InvalidConfiguration for a region, endpoint or profile that no client can be made of, and
    ServiceUnavailable when the service that gives out credentials fails.
    """
    identity = env.identity
    url, place = env.endpoint(service), region or (identity and identity.region) or env.region
    session = await session_of(env, raw=service in RAW_SERVICES, region=place)
    return await env.shared.get(
        f"aws client {service} {place} {url} {purpose} as={identity.name if identity else ''}",
        lambda: _client(
            session, service, place, url=url, options=_options(connections_max, read_s_max, streams=streams)
        ),
    )


@asynccontextmanager
async def _client(
    session: AioSession, service: str, region: str | None, *, url: str | None, options: AioConfig
) -> AsyncIterator[Any]:
    await _credentials(session, service)
    try:
        context = session.create_client(service, region_name=region, endpoint_url=url, config=options)
        opened = await context.__aenter__()
    except (boto.BotoCoreError, ValueError) as error:
        problem = (
            f"AWS client of {service}: region {region!r}, endpoint {url!r}: {type(error).__name__}: {error}"
        )
        remedy = "; set region and endpoint_url, or the AWS variables and profile"
        if isinstance(error, boto.ProfileNotFound):
            remedy = "; correct the profile's name, or write it into ~/.aws/config"
        raise InvalidConfiguration([problem + remedy]) from error
    opened.meta.events.register("before-parse", _refuse_broken)
    try:
        yield opened
    finally:
        await context.__aexit__(None, None, None)


async def _credentials(session: AioSession, service: str) -> None:
    """Finds the session's credentials, which the library would do while it makes a client.

    Raises ServiceUnavailable if the service that gives them out (container, instance, process) fails or sends something odd.
    """
    try:
        await session.get_credentials()
    except _CREDENTIALS_LATER as error:
        raise ServiceUnavailable(
            f"{service} client: {type(error).__name__}: no credentials from the service that gives them out"
        ) from error
    except (boto.BotoCoreError, ValueError):
        # A mistake in the settings or the profile. Making the client tells it.
        return


def _options(connections_max: int, read_s_max: float, *, streams: bool) -> AioConfig:
    return AioConfig(
        connector_args={"keepalive_timeout": KEEP_ALIVE_S, "socket_factory": kept_alive},
        http_session_cls=StreamingSession if streams else BoundedSession,
        connect_timeout=CONNECT_S_MAX,
        read_timeout=read_s_max,
        max_pool_connections=connections_max,
        # The service judges parameters; a stored sequence number that is too short is an answer, not a bug.
        parameter_validation=False,
        retries={"mode": "standard", "total_max_attempts": 1},
        user_agent_extra="esm-poller",
        warm_up_loader_caches=True,
    )


def kept_alive(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address that shows the network and itself that its connection is still in use.

    A function may be silent for 15 minutes. Gateways forget connections that are silent for longer (AWS's NAT: 350 s), and
    then the answer never comes. The library's own option for it has no effect in its asynchronous form.
    """
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        # Not every system has all of them.
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


class BrokenAnswer(Exception):
    """A success whose body is not the JSON object that the service sends."""


def _refuse_broken(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """Refuses a cut answer, which botocore would take for a success without any content.

    A receive that looks empty while its messages are in flight is the worst case. The check reads the text without
    building objects, at some 4 GB a second.
    """
    if operation_model.service_model.resolved_protocol != "json" or operation_model.has_event_stream_output:
        return
    if operation_model.output_shape is None or response_dict["status_code"] >= 300:
        return
    if not _is_object(response_dict["body"]):
        raise BrokenAnswer(operation_model.name)


def _is_object(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        return _is_odd_object(body)
    return True


def _is_odd_object(body: bytes) -> bool:
    """Whether the standard library reads an object where msgspec does not: one with lone surrogates."""
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


THROTTLED = (
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "KMSThrottlingException",
    "KmsThrottled",
    "LimitExceededException",
    "OverLimit",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttled",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
)
DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "AuthorizationError",
    "AuthorizationErrorException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSignatureException",
    "InvalidToken",
    "KMSAccessDenied",
    "KMSAccessDeniedException",
    "KMSDisabled",
    "KMSDisabledException",
    "KMSInvalidState",
    "KMSInvalidStateException",
    "KMSNotFound",
    "KMSNotFoundException",
    "KMSOptInRequired",
    "KmsAccessDenied",
    "KmsDisabled",
    "KmsInvalidKeyUsage",
    "KmsInvalidState",
    "KmsNotFound",
    "KmsOptInRequired",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
)
MISSING = (
    "InvalidAddress",
    "NoSuchBucket",
    "NonExistentQueue",
    "NotFound",
    "NotFoundException",
    "QueueDoesNotExist",
    "ResourceNotFoundException",
)
CODES: Mapping[str, type[PortError]] = MappingProxyType(
    dict.fromkeys(THROTTLED, ServiceThrottled)
    | dict.fromkeys(DENIED, AccessDenied)
    | dict.fromkeys(MISSING, ResourceMissing)
    | {"ExpiredIteratorException": CursorExpired, "TrimmedDataAccessException": PositionTrimmed}
)
"""What an error code means to the caller, whatever the service. Unknown codes go by the HTTP status."""
STATUSES: Mapping[int, type[PortError]] = MappingProxyType(
    {401: AccessDenied, 403: AccessDenied, 404: ResourceMissing, 429: ServiceThrottled}
)
_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
)
_CREDENTIALS_LATER = (
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.HTTPClientError,
    # The library reads an answer as if it could only have the documented form.
    AttributeError,
    LookupError,
    ParserError,
    TypeError,
)
"""What looking for credentials raises when they cannot be had at the moment. It is no mistake of the configuration."""
_BROKEN = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ChecksumError,
    BrokenAnswer,
    ResponseParserError,
    # Of an event stream whose bytes were changed on the way.
    EventStreamParserError,
    struct.error,
    # Corrupt bytes reach the caller bare.
    UnicodeDecodeError,
    # So does what nests too deep to be read.
    RecursionError,
    aiohttp.ClientError,
    OSError,
)
_EXPECTED = (boto.ClientError, RoleTrouble, *_CREDENTIALS, *_BROKEN)
_NOTHING: Mapping[str, type[PortError]] = MappingProxyType({})


@contextmanager
def mapped(operation: str, special: Mapping[str, type[PortError]] = _NOTHING) -> Iterator[None]:
    """Turns what a call raises into port errors; `operation` names it ("kinesis GetRecords").

    `special` has codes that mean something else in this operation. Anything unexpected, a bug, passes.
    """
    try:
        yield
    except _EXPECTED as error:
        raise translate(error, operation, special) from error


def translate(
    error: Exception, operation: str, special: Mapping[str, type[PortError]] = _NOTHING
) -> PortError:
    """The port error for what an AWS client raised; its reason has the code, never the service's text.

    That text may repeat signed headers, receipts or payloads.
    """
    if isinstance(error, boto.ClientError):
        code, status = code_of(error), status_of(error)
        kind = special.get(code) or CODES.get(code) or STATUSES.get(status, ServiceUnavailable)
        return kind(f"{operation}: {code} (HTTP {status})")
    if isinstance(error, RoleTrouble):
        return _role_trouble(error, operation)
    if isinstance(error, _CREDENTIALS):
        return AccessDenied(f"{operation}: {type(error).__name__}: give AWS credentials to this process")
    return ServiceUnavailable(f"{operation}: {type(error).__name__}")


def _role_trouble(error: RoleTrouble, operation: str) -> PortError:
    """The port error of a call whose credentials were to come from an assumed role."""
    identity, cause = error.identity, error.cause
    if isinstance(cause, boto.ProfileNotFound | boto.NoRegionError):
        found: PortError = AccessDenied(f"{type(cause).__name__}; correct profile and region of the identity")
    else:
        found = translate(cause, "sts AssumeRole")
        if isinstance(found, AccessDenied) and isinstance(cause, boto.ClientError):
            remedy = "allow sts:AssumeRole to the caller, and the caller in the role's trust policy, with the same external_id"
            found = AccessDenied(f"{found.reason}; {remedy}")
    text = f"identity {identity.name}: {identity.role_arn} cannot be assumed: {found.reason}"
    return type(found)(f"{operation}: {text}")


def code_of(error: boto.ClientError) -> str:
    """The error's code, without the prefix that SQS adds for old clients."""
    return bare(str(error.response.get("Error", {}).get("Code", "Unknown")))


def bare(code: str) -> str:
    """A code without the prefix that SQS adds for old clients, as one line that can be shown: cut, and without credentials."""
    return line_of(code.removeprefix(_QUERY_PREFIX), chars_max=CODE_CHARS_MAX)


def status_of(error: boto.ClientError) -> int:
    """The HTTP status of the answer; 0 if it has none."""
    found = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return numbers.whole(found, most=STATUS_MAX, default=0)


def checked_arn(text: str, *, service: str, resource: str, form: str) -> str:
    """`text` if it is an ARN of `service` whose resource matches the pattern `resource`.

    Else raises ValueError with `form`, what to write instead.
    """
    pattern = rf"arn:{PARTITION}:{service}:{REGION}:{ACCOUNT}:{resource}"
    if re.fullmatch(pattern, text) is None:
        if re.fullmatch(pattern, text.strip()):
            raise ValueError("has blanks around it; remove them")
        raise ValueError(f"is not {form}")
    return text
