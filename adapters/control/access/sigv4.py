"""Owns the verification of AWS Signature Version 4 as the SDKs sign requests to Lambda.

The module is pure: the request, the keys and the time are arguments. Error texts are AWS's where AWS has one, but they do not
repeat what the client sent.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.query_string import parts, raw_pairs
from poller.domain.records import Epoch

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "lambda"
TERMINATOR = "aws4_request"
SKEW_S = 300
"""How far a request's date may be from this server's clock."""

MISSING = "Missing Authentication Token"
UNKNOWN = "The security token included in the request is invalid."
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)
ELEMENTS = "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."
NO_DATE = "Authorization header requires existence of a 'X-Amz-Date' header."
DATE_FORM = "Date must be in ISO-8601 'basic format', such as 20260131T120000Z."
PAYLOAD = "The provided 'x-amz-content-sha256' header does not match what was computed."

_PARAMETERS = ("Credential", "Signature", "SignedHeaders")
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_SPACES = re.compile(r" +")
_ELEMENTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it was sent. `target` is the encoded path and query; `headers` are in their order."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Returns all values of one header; `name` is in lower case."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the Authorization header says, before anything of it is proven."""

    key: str
    day: str
    region: str
    service: str
    terminator: str
    signed: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        """The credential's scope."""
        return f"{self.day}/{self.region}/{self.service}/{self.terminator}"


@dataclass(frozen=True, slots=True)
class Proof:
    """A verified signature, with its key and the time at which it says that it was made."""

    key: str
    signature: str
    at: Epoch


def claim(request: Request) -> Claim:
    """Parses the Authorization header; raises RequestRejected if something is missing. Needs no body."""
    given = request.all("authorization")
    if not given:
        raise RequestRejected(RejectionType.NO_TOKEN, MISSING)
    algorithm, _, rest = given[0].strip().partition(" ")
    found = _parameters(rest) if algorithm == ALGORITHM and len(given) == 1 else {}
    lacking = [
        f"Authorization header requires '{name}' parameter." for name in _PARAMETERS if not found.get(name)
    ]
    if len(request.all("x-amz-date")) != 1:
        lacking.append(NO_DATE)
    if lacking:
        raise RequestRejected(RejectionType.INCOMPLETE, " ".join(lacking))
    elements = found["Credential"].split("/")
    if len(elements) != _ELEMENTS or not all(elements):
        raise RequestRejected(RejectionType.INCOMPLETE, ELEMENTS)
    key, day, region, service, terminator = elements
    return Claim(
        key=key,
        day=day,
        region=region,
        service=service,
        terminator=terminator,
        signed=tuple(found["SignedHeaders"].split(";")),
        signature=found["Signature"],
    )


def secret_for(request: Request, claimed: Claim, keys: Mapping[str, str], *, now: Epoch) -> str:
    """Returns the secret of the claimed key; raises RequestRejected for everything that is wrong and needs no body to see."""
    date = request.all("x-amz-date")[0].strip()
    at = _moment(date)
    _check_scope(claimed, date)
    secret = keys.get(claimed.key)
    if secret is None:
        raise RequestRejected(RejectionType.UNKNOWN_KEY, UNKNOWN)
    _check_signed(request, claimed)
    _check_skew(date, at, now)
    return secret


def proof(request: Request, claimed: Claim, keys: Mapping[str, str], *, now: Epoch) -> Proof:
    """Verifies the claim; `keys` are secrets by access key id. Raises RequestRejected."""
    secret = secret_for(request, claimed, keys, now=now)
    date = request.all("x-amz-date")[0].strip()
    text = string_to_sign(canonical(request, claimed.signed, _payload(request)), date, claimed.scope)
    if not hmac.compare_digest(signature(secret, claimed, text).encode(), claimed.signature.encode()):
        raise RequestRejected(RejectionType.SIGNATURE, MISMATCH)
    return Proof(claimed.key, claimed.signature, _moment(date))


def canonical(request: Request, signed: tuple[str, ...], payload: str) -> str:
    """Returns the canonical request; `payload` is the body's hash in hex. The path is encoded again, as for every service but S3."""
    path, query = parts(request.target)
    sorted_pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in raw_pairs(query)
    )
    return "\n".join(
        (
            request.method,
            quote(path.encode("utf-8", "surrogateescape"), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in sorted_pairs),
            *(f"{name}:{_header(request, name)}" for name in signed),
            "",
            ";".join(signed),
            payload,
        )
    )


def string_to_sign(canonical_request: str, date: str, scope: str) -> str:
    """Returns the text that the signature is computed from."""
    digest = hashlib.sha256(canonical_request.encode("utf-8", "surrogateescape")).hexdigest()
    return "\n".join((ALGORITHM, date, scope, digest))


def signature(secret: str, claimed: Claim, text: str) -> str:
    """Returns the signature of `text` by a secret, in hex."""
    key = f"AWS4{secret}".encode()
    for part in (claimed.day, claimed.region, claimed.service, claimed.terminator, text):
        key = hmac.new(key, part.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return key.hex()


def _parameters(text: str) -> dict[str, str]:
    pairs = (each.strip().partition("=") for each in text.split(","))
    return {name: value for name, _, value in pairs}


def _moment(date: str) -> Epoch:
    if not _DATE.fullmatch(date):
        raise RequestRejected(RejectionType.INCOMPLETE, DATE_FORM)
    try:
        return Epoch(datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise RequestRejected(RejectionType.INCOMPLETE, DATE_FORM) from None


def _check_scope(claimed: Claim, date: str) -> None:
    wrong = []
    if claimed.service != SERVICE:
        wrong.append(f"Credential should be scoped to correct service: '{SERVICE}'.")
    if claimed.terminator != TERMINATOR:
        wrong.append(f"Credential should be scoped with a valid terminator: '{TERMINATOR}'.")
    if claimed.day != date[:8]:
        wrong.append(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP."
        )
    if wrong:
        raise RequestRejected(RejectionType.SIGNATURE, " ".join(wrong))


def _check_signed(request: Request, claimed: Claim) -> None:
    """Raises RequestRejected unless host, date and all x-amz- headers are signed, and the list of signed headers is in order."""
    sent = {name.lower() for name, _ in request.headers}
    needed = {"host", "x-amz-date"} | {name for name in sent if name.startswith("x-amz-")}
    for name in sorted(needed - set(claimed.signed)):
        raise RequestRejected(
            RejectionType.SIGNATURE, f"'{name}' must be a 'SignedHeader' in the AWS Authorization."
        )
    ordered = list(claimed.signed) == sorted(set(claimed.signed))
    if not (ordered and sent.issuperset(claimed.signed) and len(request.all("host")) == 1):
        raise RequestRejected(RejectionType.SIGNATURE, MISMATCH)
    if not _SIGNATURE.fullmatch(claimed.signature):
        raise RequestRejected(RejectionType.SIGNATURE, MISMATCH)


def _check_skew(date: str, at: Epoch, now: Epoch) -> None:
    minutes = SKEW_S // 60
    if at < now - SKEW_S:
        limit = f"{_basic_format(now - SKEW_S)} ({_basic_format(now)} - {minutes} min.)"
        raise RequestRejected(
            RejectionType.SIGNATURE, f"Signature expired: {date} is now earlier than {limit}"
        )
    if at > now + SKEW_S:
        limit = f"{_basic_format(now + SKEW_S)} ({_basic_format(now)} + {minutes} min.)"
        raise RequestRejected(
            RejectionType.SIGNATURE, f"Signature not yet current: {date} is still later than {limit}"
        )


def _basic_format(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ")


def _payload(request: Request) -> str:
    """Returns the hash of the body. A header that gives a hash must agree with it, so UNSIGNED-PAYLOAD is refused."""
    payload = hashlib.sha256(request.body).hexdigest()
    if any(value.strip() != payload for value in request.all("x-amz-content-sha256")):
        raise RequestRejected(RejectionType.SIGNATURE, PAYLOAD)
    return payload


def _header(request: Request, name: str) -> str:
    return ",".join(_SPACES.sub(" ", value.strip()) for value in request.all(name))
