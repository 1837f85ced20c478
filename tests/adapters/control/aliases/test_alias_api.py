"""Lambda's operations on versions and aliases, by AWS's own client and by bodies as they are on the wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.control.aliases.alias_requests import creation, update
from adapters.control.aws_errors import RequestRejected
from poller.domain.functions.alias_control import AliasChange
from poller.domain.mapping_api import ApiError
from poller.domain.telemetry.labels import ApiOperation
from tests.adapters.control.aliases.alias_model import REVISION
from tests.adapters.control.invoke.callers import ARN, CallerModel
from tests.adapters.control.invoke.test_invoke_api import by_client, files, headers_of, setting
from tests.adapters.control.serving import Running, serving
from tests.adapters.control.test_access import Keys, sent
from tests.adapters.control.test_audit import Told
from tests.adapters.control.test_sigv4 import signed

__all__ = ["files"]
ALIASES = "/2015-03-31/functions/orders/aliases"
LIVE = f"{ALIASES}/live"
VERSIONS = "/2015-03-31/functions/orders/versions"
NAMES = "(?!^[0-9]+$)([a-zA-Z0-9-_]+)"
NUMBERS = r"(\$LATEST(\.PUBLISHED)?|[0-9]+)"
STALE = (
    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest "
    "Revision Id"
)


def versioned() -> CallerModel:
    return CallerModel(versions=("1", "2", "3"))


async def exact(run: Running, method: str, target: str, body: bytes = b"") -> tuple[int, bytes, str | None]:
    """Status, body to the byte, and AWS's error type of a signed request."""
    request = signed(method, target, body=body)
    status, found, headers = await run.exact(
        method, target, data=request.body or None, headers=headers_of(request)
    )
    return status, found, headers.get("x-amzn-errortype")


def answered(revision: int, version: str, *, weights: str = "", description: str = "") -> bytes:
    """The AliasConfiguration of `live`, to the byte."""
    routing = f'"RoutingConfig":{{"AdditionalVersionWeights":{weights}}},' if weights else ""
    return (
        f'{{"AliasArn":"{ARN}:live","Name":"live","FunctionVersion":"{version}","Description":"{description}",{routing}'
        f'"RevisionId":"{REVISION.format(revision)}"}}'
    ).encode()


GOLDEN: list[tuple[str, str, bytes, int, bytes, str | None]] = [
    ("POST", ALIASES, b'{"Name":"live","FunctionVersion":"1"}', 201, answered(1, "1"), None),
    (
        "POST",
        ALIASES,
        b'{"Name": "live", "FunctionVersion": "2"}',
        409,
        b'{"Type":"User","message":"Alias already exists: %b:live"}' % ARN.encode(),
        "ResourceConflictException",
    ),
    ("GET", LIVE, b"", 200, answered(1, "1"), None),
    (
        "PUT",
        LIVE,
        b'{"RoutingConfig":{"AdditionalVersionWeights":{"2":0.1}},"Description":"canary","RevisionId":null}',
        200,
        answered(2, "1", weights='{"2":0.1}', description="canary"),
        None,
    ),
    (
        "PUT",
        LIVE,
        b'{"RevisionId":"%b","FunctionVersion":"2"}' % REVISION.format(1).encode(),
        412,
        b'{"Type":"User","message":"%b"}' % STALE.encode(),
        "PreconditionFailedException",
    ),
    (
        "GET",
        ALIASES,
        b"",
        200,
        b'{"Aliases":[%b]}' % answered(2, "1", weights='{"2":0.1}', description="canary"),
        None,
    ),
    ("GET", f"{ALIASES}?FunctionVersion=3", b"", 200, b'{"Aliases":[]}', None),
    (
        "PUT",
        f"{LIVE}/",
        b'{"FunctionVersion":"2","RoutingConfig":{},"RevisionId":"%b"}' % REVISION.format(2).encode(),
        200,
        answered(3, "2", description="canary"),
        None,
    ),
    ("DELETE", LIVE, b"", 204, b"", None),
    ("DELETE", f"{LIVE}/", b"", 204, b"", None),
    (
        "GET",
        f"{LIVE}/",
        b"",
        404,
        b'{"Type":"User","Message":"Cannot find alias arn: %b:live"}' % ARN.encode(),
        "ResourceNotFoundException",
    ),
]


def test_each_operation_answers_as_aws_to_the_byte(files: Keys) -> None:
    async def use(run: Running) -> list[tuple[int, bytes, str | None]]:
        return [await exact(run, method, target, body) for method, target, body, *_ in GOLDEN]

    assert serving(use, setting(files, versioned())) == [tuple(each[3:]) for each in GOLDEN]


def test_boto3_creates_updates_gets_lists_and_deletes(files: Keys) -> None:
    async def use(run: Running) -> None:
        async def ask(operation: str, **given: Any) -> dict[str, Any]:
            return await by_client(run, operation, **({"FunctionName": "orders"} | given))

        made = await ask("create_alias", Name="live", FunctionVersion="1", Description="what customers use")
        assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
        assert (made["AliasArn"], made["Description"]) == (f"{ARN}:live", "what customers use")
        changed = await ask(
            "update_alias",
            Name="live",
            RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}},
            RevisionId=made["RevisionId"],
        )
        assert changed["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.25}}
        assert changed["RevisionId"] != made["RevisionId"]
        stale = await ask("update_alias", Name="live", FunctionVersion="2", RevisionId=made["RevisionId"])
        assert stale["Error"] == {"Code": "PreconditionFailedException", "Message": STALE}
        assert (await ask("get_alias", Name="live", FunctionName=ARN))["FunctionVersion"] == "1"
        for version in ("1", "2"):
            listed = await ask("list_aliases", FunctionVersion=version)
            assert [each["Name"] for each in listed["Aliases"]] == ["live"]
        assert (await ask("delete_alias", Name="live"))["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert (await ask("list_aliases"))["Aliases"] == []

    serving(use, setting(files, versioned()))


def test_versions_are_listed_with_the_latest_first_and_in_pages(files: Keys) -> None:
    async def use(run: Running) -> None:
        whole = await by_client(run, "list_versions_by_function", FunctionName="orders")
        assert [each["Version"] for each in whole["Versions"]] == ["$LATEST", "1", "2", "3"]
        first, third = whole["Versions"][1], whole["Versions"][3]
        assert (first["FunctionArn"], first["Handler"], first["Timeout"]) == (f"{ARN}:1", "app1.handler", 11)
        assert (first["Description"], first["State"], first["MemorySize"]) == ("release 1", "Active", 512)
        assert (third["State"], third["StateReason"]) == (
            "Failed",
            "its settings changed; give it a new number",
        )
        numbers: list[str] = []
        marker: dict[str, str] = {}
        while True:
            page = await by_client(run, "list_versions_by_function", FunctionName=ARN, MaxItems=3, **marker)
            numbers += [each["Version"] for each in page["Versions"]]
            if "NextMarker" not in page:
                break
            marker = {"Marker": page["NextMarker"]}
        assert numbers == ["$LATEST", "1", "2", "3"]
        gone = await by_client(run, "list_versions_by_function", FunctionName="orders", Marker="beef")
        assert gone["Versions"] == []

    serving(use, setting(files, versioned()))


@pytest.mark.parametrize(("shown", "follows"), [("2", ["3", "10"]), ("$LATEST", ["1", "3", "10"])])
def test_a_version_that_is_gone_since_its_page_does_not_end_the_list(
    files: Keys, shown: str, follows: list[str]
) -> None:
    caller = CallerModel(versions=("1", "3", "10"))

    async def use(run: Running) -> None:
        marker = shown.encode().hex()
        page = await by_client(run, "list_versions_by_function", FunctionName="orders", Marker=marker)
        assert [each["Version"] for each in page["Versions"]] == follows

    serving(use, setting(files, caller))


def test_aliases_come_in_pages(files: Keys) -> None:
    caller = versioned()

    async def use(run: Running) -> None:
        names = [f"a{number:02}" for number in range(60)]
        for name in reversed(names):
            await caller.aliases.create("orders", name, AliasChange(version="1"))
        first = await by_client(run, "list_aliases", FunctionName="orders")
        assert [each["Name"] for each in first["Aliases"]] == names[:50]
        rest = await by_client(run, "list_aliases", FunctionName="orders", Marker=first["NextMarker"])
        assert [each["Name"] for each in rest["Aliases"]] == names[50:]
        assert "NextMarker" not in rest

    serving(use, setting(files, caller))


@pytest.mark.parametrize(
    ("asked", "version", "arn", "handler"),
    [
        ("orders{}?Qualifier=2", "2", f"{ARN}:2", "app2.handler"),
        ("orders{}?Qualifier=live", "1", f"{ARN}:live", "app1.handler"),
        (f"{ARN}:2{{}}?Qualifier=2", "2", f"{ARN}:2", "app2.handler"),
        ("orders{}?Qualifier=%24LATEST", "$LATEST", ARN, "app.handler"),
        ("orders{}", "$LATEST", ARN, "app.handler"),
    ],
)
def test_a_function_with_a_qualifier_is_shown_as_that_version(
    files: Keys, asked: str, version: str, arn: str, handler: str
) -> None:
    caller = versioned()

    async def use(run: Running) -> None:
        await caller.aliases.create("orders", "live", AliasChange(version="1"))
        targets = [f"/2015-03-31/functions/{asked.format(end)}" for end in ("", "/configuration")]
        (first, whole, _), (second, found, _) = [await exact(run, "GET", each) for each in targets]
        assert (first, second) == (200, 200)
        for each in (json.loads(whole)["Configuration"], json.loads(found)):
            assert (each["Version"], each["FunctionArn"], each["Handler"]) == (version, arn, handler)

    serving(use, setting(files, caller))


LONG = "x" * 129
REFUSED = [
    (b"", 400, "ValidationException", "2 validation errors detected: Value null at 'name' failed to satisfy"),
    (b"[]", 400, "SerializationException", "Start of list found where not expected"),
    (b"{", 400, "SerializationException", "not valid JSON"),
    (
        b'{"Name":"live"}',
        400,
        "ValidationException",
        "Value null at 'functionVersion' failed to satisfy constraint",
    ),
    (
        b'{"Name":"7","FunctionVersion":"1"}',
        400,
        "ValidationException",
        f"Value '7' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: {NAMES}",
    ),
    (
        b'{"Name":"a b","FunctionVersion":"x"}',
        400,
        "ValidationException",
        f"2 validation errors detected: Value 'a b' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: {NAMES}; Value 'x' at 'functionVersion' failed to satisfy constraint: Member must satisfy regular expression pattern: {NUMBERS}",
    ),
    (
        b'{"Name":"%b","FunctionVersion":"1"}' % LONG.encode(),
        400,
        "ValidationException",
        "Member must have length less than or equal to 128",
    ),
    (
        b'{"Name":"live","FunctionVersion":1}',
        400,
        "SerializationException",
        "NUMBER_VALUE can not be converted to a String",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","Description":"%b"}' % (b"x" * 257),
        400,
        "ValidationException",
        "less than or equal to 256",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":[]}',
        400,
        "SerializationException",
        "Start of list found",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":"x"}}}',
        400,
        "SerializationException",
        "STRING_VALUE can not be converted to a Double",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":true}}}',
        400,
        "SerializationException",
        "TRUE_VALUE can not be converted to a Double",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"$LATEST":0.5}}}',
        400,
        "ValidationException",
        "Value '{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":2}}}',
        400,
        "ValidationException",
        "Value '{2=2}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":null}}}',
        400,
        "ValidationException",
        "Value '{2=null}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must",
    ),
    (
        b'{"Name":"live","FunctionVersion":"","RoutingConfig":{"AdditionalVersionWeights":{"":0.5}}}',
        400,
        "ValidationException",
        "3 validation errors detected: Value '' at 'functionVersion' failed to satisfy constraint",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":-0.1}}}',
        400,
        "ValidationException",
        "Map value must",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":0.1,"3":0.1}}}',
        400,
        "InvalidParameterValueException",
        "Number of items in AdditionalVersionWeights cannot be greater than 1",
    ),
    (
        b'{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"1":0.1}}}',
        400,
        "InvalidParameterValueException",
        "Function version 1 is already included in routing configuration.",
    ),
    (
        b'{"Name":"live","FunctionVersion":"$LATEST","RoutingConfig":{"AdditionalVersionWeights":{"1":0.1}}}',
        400,
        "InvalidParameterValueException",
        "$LATEST is not supported for an alias pointing to more than 1 version",
    ),
    (
        b'{"Name":"live","FunctionVersion":"9"}',
        404,
        "ResourceNotFoundException",
        f"Function not found: {ARN}:9",
    ),
]


@pytest.mark.parametrize(("body", "status", "code", "said"), REFUSED)
def test_a_wrong_creation_is_refused_with_awss_error(
    files: Keys, body: bytes, status: int, code: str, said: str
) -> None:
    caller = versioned()

    async def use(run: Running) -> tuple[int, dict[str, Any], Any]:
        return await sent(run, signed("POST", ALIASES, body=body))

    found, answer, headers = serving(use, setting(files, caller))
    assert (found, headers["x-amzn-errortype"]) == (status, code)
    assert said in (answer.get("message") or answer["Message"])
    assert caller.alias_model.kept == {}


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("PUT", LIVE, b"{}", 404, "ResourceNotFoundException"),
        ("PUT", f"{ALIASES}/7", b"{}", 400, "ValidationException"),
        ("GET", f"{ALIASES}/7", b"", 400, "ValidationException"),
        ("DELETE", f"{ALIASES}/a%20b", b"", 400, "ValidationException"),
        ("GET", f"{ALIASES}?FunctionVersion=live", b"", 400, "ValidationException"),
        ("GET", f"{ALIASES}?MaxItems=0", b"", 400, "ValidationException"),
        ("GET", f"{ALIASES}?Marker=x", b"", 400, "InvalidParameterValueException"),
        ("GET", f"{VERSIONS}?MaxItems=10001", b"", 400, "ValidationException"),
        ("GET", ALIASES.replace("orders", "nothing"), b"", 404, "ResourceNotFoundException"),
        ("GET", VERSIONS.replace("orders", "nothing"), b"", 404, "ResourceNotFoundException"),
        ("POST", VERSIONS, b"{}", 405, "UnknownOperationException"),
    ],
)
def test_what_names_nothing_or_cannot_be_is_refused(
    files: Keys, method: str, target: str, body: bytes, status: int, code: str
) -> None:
    found = serving(lambda run: exact(run, method, target, body), setting(files, versioned()))
    assert (found[0], found[2]) == (status, code)


def test_without_a_caller_nothing_is_served(files: Keys) -> None:
    async def use(run: Running) -> list[tuple[int, str | None]]:
        asked = [("POST", ALIASES, b"{}"), ("GET", ALIASES, b""), ("GET", LIVE, b""), ("PUT", LIVE, b"{}")]
        asked += [("DELETE", LIVE, b""), ("GET", VERSIONS, b"")]
        return [(await exact(run, *each))[::2] for each in asked]

    assert serving(use, setting(files, None)) == [(501, "NotImplementedException")] * 6


def test_changes_are_audited_with_what_they_changed(files: Keys) -> None:
    told = Told()

    async def use(run: Running) -> None:
        for method, target, body, *_ in GOLDEN:
            await exact(run, method, target, body)

    serving(use, setting(files, versioned(), told))
    assert {(each.operation, each.mapping) for each in told.changes} == {(ApiOperation.ALIAS, "orders")}
    assert [(each.changes, each.refused.partition(":")[0]) for each in told.changes] == [
        (("live.FunctionVersion: none -> 1",), ""),
        (("live.FunctionVersion",), "ResourceConflictException"),
        (
            (
                "live.Description: none -> canary",
                "live.RoutingConfig.AdditionalVersionWeights.2: none -> 0.1",
            ),
            "",
        ),
        (("live.FunctionVersion", "live.RevisionId"), "PreconditionFailedException"),
        (
            ("live.FunctionVersion: 1 -> 2", "live.RoutingConfig.AdditionalVersionWeights.2: 0.1 -> none"),
            "",
        ),
        (("live.Description: canary -> none", "live.FunctionVersion: 2 -> none"), ""),
        ((), ""),
    ]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = ("Name", "FunctionVersion", "Description", "RoutingConfig", "RevisionId", "Other")


@given(st.dictionaries(st.sampled_from(MEMBERS), ANYTHING) | ANYTHING)
def test_a_body_of_any_form_is_read_or_refused(value: object) -> None:
    body = json.dumps(value).encode()
    for read in (creation, lambda given: ("live", update(given, "live"))):
        try:
            _, change = read(body)
        except (ApiError, RequestRejected):
            continue
        assert change.weights is None or all(0 <= each <= 1 for each in change.weights.values())
