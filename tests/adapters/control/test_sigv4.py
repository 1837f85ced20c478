"""Signatures: what the SDK signs is taken, whatever was changed on the way is not."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.control.access import sigv4
from adapters.control.access.replay_cache import EQUAL_S, EQUALS_MAX, Full, ReplayCache
from adapters.control.access.sigv4 import MISMATCH, SKEW_S, Proof, Request
from adapters.control.aws_errors import RejectionType, RequestRejected
from poller.domain.records import Epoch

KEY = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEYS = {KEY: SECRET, "AKIDOTHER": "another"}
URL = "http://127.0.0.1:8080"
ID = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"
ARN = f"arn:aws:lambda:eu-west-1:111122223333:event-source-mapping:{ID}"
OPERATIONS: dict[str, dict[str, Any]] = {
    "create_event_source_mapping": {
        "FunctionName": "orders:$LATEST",
        "EventSourceArn": "arn:aws:sqs:eu-west-1:111122223333:orders",
        "FilterCriteria": {"Filters": [{"Pattern": '{"body":{"über":["ß ~*\'\\""]}}'}]},
    },
    "get_event_source_mapping": {"UUID": ID},
    "list_event_source_mappings": {"FunctionName": "orders:$LATEST", "Marker": "a+/=b ~", "MaxItems": 3},
    "update_event_source_mapping": {"UUID": ID, "Enabled": False},
    "delete_event_source_mapping": {"UUID": ID},
    "tag_resource": {"Resource": ARN, "Tags": {"a b": "c+d&e=ü"}},
    "untag_resource": {"Resource": ARN, "TagKeys": ["b c", "ü+~*'()!", "a", "a&b=c", "%41"]},
    "list_tags": {"Resource": ARN},
}


class Caught(Exception):
    """Carries what the SDK would have sent."""

    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__()
        self.request = request


def catch(request: AWSPreparedRequest, **_more: Any) -> None:
    """Ends a call before it is sent."""
    raise Caught(request)


def signed_by_sdk(operation: str, *, token: str | None = None) -> Request:
    """A request as botocore's client signs it now."""
    session = botocore.session.Session()
    session.set_credentials(KEY, SECRET, token)
    config = Config(retries={"max_attempts": 0})
    client = session.create_client("lambda", region_name="eu-west-1", endpoint_url=URL, config=config)
    client.meta.events.register("before-send.lambda.*", catch)
    with pytest.raises(Caught) as caught:
        getattr(client, operation)(**OPERATIONS[operation])
    return of_prepared(caught.value.request)


def of_prepared(prepared: AWSPreparedRequest) -> Request:
    """The request as it comes over the wire."""
    sent: Any = prepared
    headers = [(name, _text(value)) for name, value in sent.headers.items()]
    return Request(
        method=prepared.method,
        target=prepared.url.removeprefix(URL),
        headers=(("Host", "127.0.0.1:8080"), *headers),
        body=_text(sent.body or b"").encode("latin-1"),
    )


def _text(value: str | bytes) -> str:
    """What the library holds as bytes in one place and as text in another."""
    return value if isinstance(value, str) else value.decode("latin-1")


def signed(
    method: str = "POST",
    target: str = "/2015-03-31/event-source-mappings",
    *,
    body: bytes = b"{}",
    headers: dict[str, str] | None = None,
    service: str = "lambda",
    secret: str = SECRET,
    key: str = KEY,
) -> Request:
    """Any request, signed by botocore's signer alone."""
    given = {"Content-Type": "application/json"} | (headers or {})
    request = AWSRequest(method=method, url=URL + target, data=body, headers=given)
    SigV4Auth(Credentials(key, secret), service, "eu-west-1").add_auth(request)
    return of_prepared(request.prepare())


def date_of(request: Request) -> Epoch:
    written = request.all("x-amz-date")[0]
    return Epoch(datetime.strptime(written, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())


def verified(request: Request, *, later_s: float = 0.0) -> Proof:
    """The proof of a request that arrives `later_s` after its date."""
    now = Epoch(date_of(request) + later_s)
    return sigv4.proof(request, sigv4.claim(request), KEYS, now=now)


def refusal(request: Request, *, later_s: float = 0.0) -> tuple[RejectionType, str]:
    with pytest.raises(RequestRejected) as caught:
        verified(request, later_s=later_s)
    return caught.value.kind, caught.value.text


def with_header(request: Request, name: str, value: str | None) -> Request:
    """The request with one header set or, with None, left out."""
    others = tuple(pair for pair in request.headers if pair[0].lower() != name.lower())
    return replace(request, headers=others if value is None else (*others, (name, value)))


def authorization(request: Request, old: str, new: str) -> Request:
    given = request.all("authorization")[0]
    assert old in given
    return with_header(request, "Authorization", given.replace(old, new))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_the_sdk_signs_is_taken(operation: str) -> None:
    request = signed_by_sdk(operation)
    found = verified(request)
    assert (found.key, found.at) == (KEY, date_of(request))


def test_a_session_token_is_signed_and_otherwise_not_checked() -> None:
    request = signed_by_sdk("delete_event_source_mapping", token="token/+=")
    assert request.all("x-amz-security-token") == ["token/+="]
    assert verified(request).key == KEY
    assert refusal(with_header(request, "x-amz-security-token", "other")) == (
        RejectionType.SIGNATURE,
        MISMATCH,
    )


@dataclass(frozen=True)
class Tampering:
    """One thing that somebody changed on the way."""

    name: str
    change: Callable[[Request], Request]


TAMPERINGS = [
    Tampering("body", lambda r: replace(r, body=r.body + b" ")),
    Tampering("no body", lambda r: replace(r, body=b"")),
    Tampering("method", lambda r: replace(r, method="PATCH")),
    Tampering(
        "path",
        lambda r: replace(r, target=r.target.replace("event-source-mappings", "event-source-mappings/x")),
    ),
    Tampering("slash", lambda r: replace(r, target=r.target + "/")),
    Tampering("dots", lambda r: replace(r, target="/./" + r.target[1:])),
    Tampering("case", lambda r: replace(r, target=r.target.upper())),
    Tampering("escape", lambda r: replace(r, target=r.target.replace("-", "%2D"))),
    Tampering("query", lambda r: replace(r, target=r.target + "?a=b")),
    Tampering("empty parameter", lambda r: replace(r, target=r.target + "?a")),
    Tampering("absolute", lambda r: replace(r, target=URL + r.target)),
    Tampering("fragment", lambda r: replace(r, target=r.target + "#a")),
    Tampering("host", lambda r: with_header(r, "Host", "127.0.0.1:8081")),
    Tampering("content type", lambda r: with_header(r, "Content-Type", "text/plain")),
    Tampering("second host", lambda r: replace(r, headers=(*r.headers, ("host", "127.0.0.1:8080")))),
    Tampering(
        "second type", lambda r: replace(r, headers=(*r.headers, ("Content-Type", "application/json")))
    ),
    Tampering("no type", lambda r: with_header(r, "Content-Type", None)),
    Tampering("region", lambda r: authorization(r, "eu-west-1", "eu-west-2")),
    Tampering("other key", lambda r: authorization(r, KEY, "AKIDOTHER")),
    Tampering("capitals", lambda r: authorization(r, "Signature=", "Signature=A")),
    Tampering("order", lambda r: authorization(r, "host;x-amz-date", "x-amz-date;host")),
    Tampering("twice", lambda r: authorization(r, "host;", "host;host;")),
    Tampering("more signed", lambda r: authorization(r, "host;", "host;user-agent;")),
]


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda each: each.name)
def test_what_was_changed_on_the_way_is_refused(tampering: Tampering) -> None:
    request = tampering.change(signed_by_sdk("create_event_source_mapping"))
    assert refusal(request) == (RejectionType.SIGNATURE, MISMATCH)


def test_another_query_is_refused_though_it_means_nearly_the_same() -> None:
    request = signed_by_sdk("untag_resource")
    assert "%2B" in request.target
    for old, new in (("%2B", "%20"), ("tagKeys=a&", ""), ("tagKeys=a&", "tagKeys=A&"), ("%2541", "%41")):
        assert old in request.target
        assert refusal(replace(request, target=request.target.replace(old, new))) == (
            RejectionType.SIGNATURE,
            MISMATCH,
        )


def test_the_order_and_the_spelling_of_a_query_do_not_matter() -> None:
    request = signed("DELETE", "/2017-03-31/tags/x?tagKeys=a%20b&tagKeys=c", body=b"")
    assert verified(replace(request, target="/2017-03-31/tags/x?tagKeys=c&tagKeys=%61%20b")).key == KEY


def test_a_changed_date_is_refused() -> None:
    request = signed()
    later = datetime.fromtimestamp(date_of(request), UTC) + timedelta(seconds=1)
    moved = with_header(request, "X-Amz-Date", later.strftime("%Y%m%dT%H%M%SZ"))
    assert refusal(moved) == (RejectionType.SIGNATURE, MISMATCH)


@pytest.mark.parametrize("name", ["host", "x-amz-date"])
def test_host_and_date_must_be_signed(name: str) -> None:
    request = signed(headers={"a-header": "1", "z-header": "2"})
    kind, text = refusal(authorization(request, f"{name};", ""))
    assert (kind, text) == (
        RejectionType.SIGNATURE,
        f"'{name}' must be a 'SignedHeader' in the AWS Authorization.",
    )


@pytest.mark.parametrize("name", ["X-Amz-Security-Token", "x-amz-content-sha256", "X-AMZ-Anything"])
def test_a_header_of_aws_that_is_not_signed_is_refused(name: str) -> None:
    kind, text = refusal(with_header(signed(), name, "x"))
    assert (kind, text) == (
        RejectionType.SIGNATURE,
        f"'{name.lower()}' must be a 'SignedHeader' in the AWS Authorization.",
    )


def test_other_headers_may_be_added_on_the_way() -> None:
    request = with_header(with_header(signed(), "X-Forwarded-For", "10.0.0.1"), "x-amzn-trace-id", "Root=1")
    assert verified(request).key == KEY


@pytest.mark.parametrize(
    "said",
    ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", hashlib.sha256(b"other").hexdigest(), ""],
)
def test_a_payload_is_what_its_signed_hash_says(said: str) -> None:
    request = signed(headers={"X-Amz-Content-SHA256": said})
    kind, _ = refusal(request)
    assert kind is RejectionType.SIGNATURE


def test_a_right_hash_of_the_payload_is_taken() -> None:
    assert verified(signed(headers={"X-Amz-Content-SHA256": hashlib.sha256(b"{}").hexdigest()})).key == KEY


def test_headers_are_compared_without_their_outer_and_double_spaces() -> None:
    request = signed(headers={"x-amz-meta": "a b"})
    assert verified(with_header(request, "x-amz-meta", "  a   b ")).key == KEY


@pytest.mark.parametrize("off_s", [-SKEW_S, -1, 0, 1, SKEW_S])
def test_a_date_within_five_minutes_is_taken(off_s: float) -> None:
    assert verified(signed(), later_s=off_s).key == KEY


def test_a_date_from_too_long_ago_is_refused_with_both_times() -> None:
    request = signed()
    at = datetime.fromtimestamp(date_of(request), UTC)
    kind, text = refusal(request, later_s=SKEW_S + 1)
    least, now = at + timedelta(seconds=1), at + timedelta(seconds=SKEW_S + 1)
    assert kind is RejectionType.SIGNATURE
    assert text == (
        f"Signature expired: {at:%Y%m%dT%H%M%SZ} is now earlier than {least:%Y%m%dT%H%M%SZ} "
        f"({now:%Y%m%dT%H%M%SZ} - 5 min.)"
    )


def test_a_date_in_the_future_is_refused() -> None:
    kind, text = refusal(signed(), later_s=-SKEW_S - 1)
    assert kind is RejectionType.SIGNATURE
    assert text.startswith("Signature not yet current: ")
    assert text.endswith(" + 5 min.)")


def test_another_service_is_refused_with_the_right_one() -> None:
    assert refusal(signed(service="sqs")) == (
        RejectionType.SIGNATURE,
        "Credential should be scoped to correct service: 'lambda'.",
    )


def test_a_scope_of_another_day_or_end_is_refused() -> None:
    request = signed()
    day = request.all("x-amz-date")[0][:8]
    kind, text = refusal(authorization(request, f"/{day}/", "/20010101/"))
    assert (kind, text.startswith("Date in Credential scope")) == (RejectionType.SIGNATURE, True)
    kind, text = refusal(authorization(request, "aws4_request", "aws5_request"))
    assert (kind, "'aws4_request'" in text) == (RejectionType.SIGNATURE, True)


def test_an_unknown_key_is_refused() -> None:
    assert refusal(signed(key="AKIDUNKNOWN")) == (
        RejectionType.UNKNOWN_KEY,
        "The security token included in the request is invalid.",
    )


def test_a_wrong_secret_is_refused() -> None:
    assert refusal(signed(secret="guess")) == (RejectionType.SIGNATURE, MISMATCH)


def test_no_signature_at_all_is_reported() -> None:
    assert refusal(with_header(signed(), "Authorization", None)) == (
        RejectionType.NO_TOKEN,
        "Missing Authentication Token",
    )


INCOMPLETE = [
    "Bearer hunter2",
    "Basic aHVudGVyMg==",
    "AWS4-ECDSA-P256-SHA256 Credential=hunter2/a/b/c/d, SignedHeaders=host, Signature=hunter2",
    "AWS4-HMAC-SHA256",
    "AWS4-HMAC-SHA256 Credential=hunter2",
    "AWS4-HMAC-SHA256 Credential=hunter2/20260101/lambda/aws4_request, SignedHeaders=host, Signature=hunter2",
    "AWS4-HMAC-SHA256 Credential=////, SignedHeaders=host, Signature=hunter2",
    "AWS4-HMAC-SHA256 Credential=hunter2/a/b/lambda/aws4_request, SignedHeaders=, Signature=hunter2",
    "",
]


@pytest.mark.parametrize("text", INCOMPLETE)
def test_an_incomplete_authorization_is_refused_without_an_echo(text: str) -> None:
    kind, told = refusal(with_header(signed(), "Authorization", text))
    assert kind is RejectionType.INCOMPLETE
    assert "hunter2" not in told


def test_two_authorizations_are_one_too_many() -> None:
    request = signed()
    twice = replace(request, headers=(*request.headers, ("authorization", request.all("authorization")[0])))
    assert refusal(twice)[0] is RejectionType.INCOMPLETE


@pytest.mark.parametrize(
    "date", ["", "now", "2026-01-31T12:00:00Z", "20260231T120000Z", "20260131T250000Z", "²0260131T120000Z"]
)
def test_a_date_of_another_form_is_refused(date: str) -> None:
    request = signed()
    with pytest.raises(RequestRejected) as caught:
        sigv4.proof(
            with_header(request, "X-Amz-Date", date), sigv4.claim(request), KEYS, now=date_of(request)
        )
    assert caught.value.kind is RejectionType.INCOMPLETE


def test_the_date_header_alone_does_not_do() -> None:
    kind, text = refusal_without_date()
    assert (kind, text) == (
        RejectionType.INCOMPLETE,
        "Authorization header requires existence of a 'X-Amz-Date' header.",
    )


def refusal_without_date() -> tuple[RejectionType, str]:
    with pytest.raises(RequestRejected) as caught:
        sigv4.claim(with_header(signed(), "X-Amz-Date", None))
    return caught.value.kind, caught.value.text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.binary(max_size=64),
)
def test_whatever_the_signer_encodes_is_verified(
    query: list[tuple[str, str]], name: str, body: bytes
) -> None:
    path = "/2017-03-31/tags/" + quote(name, safe="")
    if set(name) <= {"."}:
        path += "x"
    found = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in query if k)
    target = path + ("?" + found if found else "")
    assert verified(signed("POST", target, body=body)).key == KEY


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_no_authorization_makes_the_verification_fail_otherwise(text: str) -> None:
    request = with_header(signed(), "Authorization", f"AWS4-HMAC-SHA256 {text}")
    assert refusal(request)[0] in RejectionType


def test_a_used_signature_is_refused() -> None:
    replays, proof = ReplayCache(), Proof(KEY, "a" * 64, Epoch(1000.0))
    assert replays.admit(proof, "call-1", now=Epoch(1000.0))
    assert not replays.admit(proof, "call-1", now=Epoch(1000.0))
    assert not replays.admit(proof, "", now=Epoch(1000.0))
    assert not replays.admit(proof, "call-1", now=Epoch(1000.0 + SKEW_S))


def test_equal_calls_of_one_second_are_not_replays() -> None:
    replays, proof = ReplayCache(), Proof(KEY, "a" * 64, Epoch(1000.0))
    assert replays.admit(proof, "call-1", now=Epoch(1000.0))
    assert replays.admit(proof, "call-2", now=Epoch(1000.0 + EQUAL_S))
    assert not replays.admit(proof, "call-2", now=Epoch(1000.0 + EQUAL_S))
    assert not replays.admit(proof, "call-3", now=Epoch(1000.1 + EQUAL_S))


def test_there_are_not_many_equal_calls() -> None:
    replays, proof = ReplayCache(), Proof(KEY, "a" * 64, Epoch(1000.0))
    taken = [replays.admit(proof, f"call-{n}", now=Epoch(1000.0)) for n in range(EQUALS_MAX + 5)]
    assert taken.count(True) == EQUALS_MAX


def test_a_signature_is_remembered_for_as_long_as_it_is_good() -> None:
    replays, proof = ReplayCache(), Proof(KEY, "a" * 64, Epoch(1000.0))
    assert replays.admit(proof, "", now=Epoch(1000.0 - SKEW_S))
    assert not replays.admit(proof, "", now=Epoch(1000.0 + SKEW_S))
    assert replays.admit(Proof(KEY, "b" * 64, Epoch(1301.0)), "", now=Epoch(1300.1))
    assert len(replays) == 1


def test_the_memory_is_bounded_and_forgets_nothing_that_is_still_good() -> None:
    replays = ReplayCache(signatures_max=3)
    for number in range(3):
        assert replays.admit(Proof(KEY, str(number), Epoch(1000.0 + number)), "", now=Epoch(1000.0))
    with pytest.raises(Full):
        replays.admit(Proof(KEY, "3", Epoch(1003.0)), "", now=Epoch(1003.0))
    assert not replays.admit(Proof(KEY, "0", Epoch(1000.0)), "", now=Epoch(1003.0))
    assert replays.admit(Proof(KEY, "4", Epoch(1301.0)), "", now=Epoch(1300.5))
    assert len(replays) == 3
