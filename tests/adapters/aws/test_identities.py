"""AWS is called as the identity that the settings name: by its profile, by its role, with credentials that are always fresh."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from adapters.aws import identities
from adapters.aws.clients import client, mapped
from adapters.aws.permission_checks import tried
from adapters.aws.request_templates import FastOperation
from adapters.destinations import sqs as sqs_destinations
from adapters.invokers import lambda_api
from adapters.sources import dynamodb_streams, sqs
from adapters.sources.kinesis import plugin as kinesis
from adapters.stores.dynamodb import store as dynamodb_store
from poller.clock import LoopClock
from poller.domain.errors import (
    AccessDenied,
    InvalidConfiguration,
    PortError,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.findings import Severity
from poller.plugins import AwsIdentity, Environment
from tests.adapters.answers import on_a_loop
from tests.contracts.invokers import served
from tests.emulators import ministack

pytestmark = pytest.mark.usefixtures("account")

ROLE = "arn:aws:iam::444455556666:role/poller"
REMEDY = (
    "allow sts:AssumeRole to the caller, and the caller in the role's trust policy, with the same external_id"
)
BILLING = AwsIdentity(name="billing", role_arn=ROLE, external_id="x-1", session_name="orders")
PLAIN = AwsIdentity(name="plain", role_arn=ROLE)
HOUR_S = 3600.0
MINUTE_S = 60.0
"""Less than what is left of credentials when the library refreshes them, so that each signature asks for new ones."""


@dataclass
class Account:
    """STS, and a service that takes every call. Each assumed role gets access keys of its own, ASIA1, ASIA2 and so on."""

    lasts_s: float = HOUR_S
    status: int = 200
    code: str = "AccessDenied"
    body: str | None = None
    assumed: list[dict[str, str]] = field(default_factory=list)
    """The parameters of each AssumeRole, and the access key that signed it."""
    regions: list[str] = field(default_factory=list)
    """The regions that AssumeRole was signed for."""
    signed_by: list[str] = field(default_factory=list)
    """The access keys of all other calls."""
    tokens: list[str | None] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Answers any call of any service."""
        text = await request.text()
        key, _, region = request.headers["Authorization"].partition("Credential=")[2].split("/")[:3]
        if "Action=AssumeRole" in text:
            given = {name: values[0] for name, values in parse_qs(text).items()}
            self.assumed.append({**given, "key": key})
            self.regions.append(region)
            return self._assumed()
        self.signed_by.append(key)
        self.tokens.append(request.headers.get("X-Amz-Security-Token"))
        return web.json_response({}, content_type="application/x-amz-json-1.1")

    def _assumed(self) -> web.Response:
        if self.body is not None or self.status != 200:
            error = f"<ErrorResponse><Error><Code>{self.code}</Code><Message>secret words</Message></Error></ErrorResponse>"
            return web.Response(text=self.body or error, status=self.status, content_type="text/xml")
        number = len(self.assumed)
        until = datetime.fromtimestamp(time.time() + self.lasts_s, UTC).isoformat()
        body = (
            "<AssumeRoleResponse><AssumeRoleResult><Credentials>"
            f"<AccessKeyId>ASIA{number}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t{number}</SessionToken><Expiration>{until}</Expiration>"
            "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )
        return web.Response(text=body, content_type="text/xml")


@asynccontextmanager
async def reached(account: Account, *known: AwsIdentity) -> AsyncIterator[Environment]:
    """An environment whose services are all of this account."""
    app = web.Application()
    app.router.add_post("/{rest:.*}", account.answer)
    async with served(app) as url:
        names = {each.name: each for each in known or (BILLING, PLAIN)}
        env = Environment(LoopClock(), region="eu-west-1", endpoint_url=url, identities=names)
        try:
            yield env
        finally:
            await env.shared.close()


async def asked(env: Environment, name: str | None = "billing") -> None:
    """One call as an identity."""
    service = await client(env.acting_as(name), "kinesis", "eu-west-1")
    with mapped("kinesis ListShards"):
        await service.list_shards(StreamName="orders")


@on_a_loop
async def test_a_role_is_assumed_once_by_the_process_and_signs_all_calls_of_its_identity(
    account: str,
) -> None:
    aws = Account()
    async with reached(aws) as env:
        for _ in range(3):
            await asked(env)
        await asked(env, None)
        await asked(env, "plain")
    by_billing, by_plain = aws.assumed
    assert by_billing["key"] == by_plain["key"] == account
    assert (by_billing["RoleArn"], by_billing["RoleSessionName"], by_billing["ExternalId"]) == (
        ROLE,
        "orders",
        "x-1",
    )
    assert by_plain["RoleSessionName"] == "esm-poller"
    assert "ExternalId" not in by_plain
    assert aws.signed_by == ["ASIA1", "ASIA1", "ASIA1", account, "ASIA2"]
    assert aws.tokens == ["t1", "t1", "t1", None, "t2"]


@on_a_loop
async def test_an_identity_has_one_client_for_a_service_and_identities_share_none() -> None:
    async with reached(Account()) as env:
        first, second = [await client(env.acting_as("billing"), "sqs", "eu-west-1") for _ in range(2)]
        others = [await client(env.acting_as(name), "sqs", "eu-west-1") for name in ("plain", None)]
    assert first is second
    assert len({id(each) for each in (first, *others)}) == 3


@on_a_loop
async def test_credentials_are_refreshed_before_they_end_also_for_repeated_requests() -> None:
    aws = Account(lasts_s=MINUTE_S)
    async with reached(aws) as env:
        service = await client(env.acting_as("billing"), "sqs", "eu-west-1")
        receive = FastOperation(service, "ReceiveMessage", named="QueueUrl")
        given = {"QueueUrl": f"{env.endpoint_url}/444455556666/orders"}
        await receive(given)
        used = aws.signed_by[-1]
        for _ in range(2):
            # A signature is kept for a second.
            await asyncio.sleep(1.1)
            await receive(given)
            assert aws.signed_by[-1] != used, "the request was signed with credentials that were about to end"
            used = aws.signed_by[-1]
        assert aws.tokens[-1] == f"t{len(aws.assumed)}"


REFUSALS = [
    (Account(status=403), AccessDenied, f"sts AssumeRole: AccessDenied (HTTP 403); {REMEDY}"),
    (
        Account(status=400, code="Throttling"),
        ServiceThrottled,
        "sts AssumeRole: Throttling (HTTP 400)",
    ),
    (
        Account(status=500, code="InternalFailure"),
        ServiceUnavailable,
        "sts AssumeRole: InternalFailure (HTTP 500)",
    ),
    (Account(body="<nothing/>"), ServiceUnavailable, "sts AssumeRole: KeyError"),
    (Account(body="no XML"), ServiceUnavailable, "sts AssumeRole: ResponseParserError"),
]


@pytest.mark.parametrize(
    ("aws", "kind", "reason"), REFUSALS, ids=["denied", "throttled", "failed", "odd", "not XML"]
)
@on_a_loop
async def test_a_role_that_cannot_be_assumed_is_named_with_the_reason(
    aws: Account, kind: type[PortError], reason: str
) -> None:
    aws = replace(aws, assumed=[], regions=[], signed_by=[], tokens=[])
    async with reached(aws) as env:
        with pytest.raises(PortError) as caught:
            await asked(env)
    assert type(caught.value) is kind
    assert caught.value.reason == (
        f"kinesis ListShards: identity billing: {ROLE} cannot be assumed: {reason}"
    )
    assert aws.signed_by == []


@on_a_loop
async def test_a_refused_role_is_not_asked_for_again_at_once_and_then_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = Account(status=403)
    async with reached(aws) as env:
        for _ in range(20):
            with pytest.raises(AccessDenied):
                await asked(env)
        assert len(aws.assumed) == 1
        aws.status = 200
        monkeypatch.setattr(identities, "REFUSED_S", 0.0)
        service = await client(env.acting_as("plain"), "kinesis", "eu-west-1")
        await service.list_shards(StreamName="orders")
        assert len(aws.assumed) == 2


@on_a_loop
async def test_credentials_that_are_still_good_are_used_while_sts_fails() -> None:
    # Less than a quarter of an hour: new ones are asked for. More than ten minutes: it is not urgent.
    aws = Account(lasts_s=13 * MINUTE_S)
    async with reached(aws) as env:
        await asked(env)
        good = len(aws.assumed)
        aws.status = 500
        await asked(env)
    assert len(aws.assumed) == good + 1, "nobody asked for new credentials, or somebody too often"
    assert aws.signed_by[-1] == f"ASIA{good}"


@on_a_loop
async def test_a_check_names_the_role_that_cannot_be_assumed() -> None:
    async with reached(Account(status=403)) as env:
        trial = await tried("kinesis:ListShards", asked(env), on="arn:aws:kinesis:eu-west-1:1:stream/orders")
    assert (trial.finding.check, trial.finding.grade, trial.denied) == (
        "credentials",
        Severity.PROBLEM,
        False,
    )
    assert f"{ROLE} cannot be assumed" in trial.finding.text


@pytest.fixture
def profiles(account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's configuration files, with a profile."""
    file = tmp_path / "credentials"
    file.write_text("[production]\naws_access_key_id = AKIAPRODUCTION\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))


@pytest.mark.usefixtures("profiles")
@pytest.mark.parametrize("service", ["kinesis", "lambda", "dynamodb"])
@on_a_loop
async def test_a_profile_goes_before_the_variables_of_the_process(service: str) -> None:
    async with reached(Account(), AwsIdentity(name="billing", profile="production")) as env:
        made = await client(env.acting_as("billing"), service, "eu-west-1")
        frozen = await made._get_credentials().get_frozen_credentials()
    assert frozen.access_key == "AKIAPRODUCTION"


@pytest.mark.usefixtures("profiles")
@on_a_loop
async def test_the_credentials_of_a_profile_assume_the_role() -> None:
    aws = Account()
    async with reached(aws, replace(BILLING, profile="production")) as env:
        await asked(env)
    assert [each["key"] for each in aws.assumed] == ["AKIAPRODUCTION"]


@on_a_loop
async def test_a_profile_that_does_not_exist_is_a_mistake_of_the_configuration() -> None:
    async with reached(Account(), AwsIdentity(name="billing", profile="nowhere")) as env:
        with pytest.raises(InvalidConfiguration, match="nowhere"):
            await asked(env)
    async with reached(Account(), replace(BILLING, profile="nowhere")) as env:
        with pytest.raises(InvalidConfiguration, match="nowhere"):
            await asked(env)


@pytest.mark.parametrize("service", ["lambda", "sqs"])
@on_a_loop
async def test_a_profile_that_does_not_exist_is_told_with_what_to_write(service: str) -> None:
    async with reached(Account(), AwsIdentity(name="billing", profile="nowhere")) as env:
        with pytest.raises(
            InvalidConfiguration, match=r"nowhere.*correct the profile's name, or write it into"
        ):
            await client(env.acting_as("billing"), service, "eu-west-1")


@on_a_loop
async def test_sts_of_the_first_call_s_region_is_asked_where_nothing_names_one() -> None:
    aws = Account()
    async with reached(aws) as env:
        service = await client(replace(env, region=None).acting_as("billing"), "sqs", "us-west-1")
        await service.list_queues()
    assert aws.regions == ["us-west-1"]


@on_a_loop
async def test_an_unknown_identity_is_a_mistake_of_the_configuration() -> None:
    async with reached(Account()) as env:
        with pytest.raises(InvalidConfiguration) as caught:
            env.acting_as("biling")
    assert caught.value.problems == ["identity 'biling' is not below identities; known: billing, plain"]


@on_a_loop
async def test_an_identity_s_region_and_endpoint_go_before_the_daemon_s_for_sts_too() -> None:
    aws, elsewhere = Account(), Account()
    async with reached(elsewhere) as there:
        own = replace(BILLING, region="us-east-2", endpoint_url=there.endpoint_url)
        async with reached(aws, own) as env:
            await asked(env)
            made = await client(env.acting_as("billing"), "s3", None)
            assert made.meta.region_name == "us-east-2"
    assert (aws.assumed, aws.signed_by) == ([], [])
    assert elsewhere.signed_by == ["ASIA1"]


PLUGINS: list[tuple[Any, dict[str, Any]]] = [
    (kinesis.plugin, {"arn": "arn:aws:kinesis:eu-west-1:444455556666:stream/orders"}),
    (
        dynamodb_streams.plugin,
        {"arn": "arn:aws:dynamodb:eu-west-1:444455556666:table/orders/stream/2026-01-01T00:00:00.000"},
    ),
    (sqs.plugin, {"arn": "arn:aws:sqs:eu-west-1:444455556666:orders"}),
    (sqs_destinations.plugin, {"arn": "arn:aws:sqs:eu-west-1:444455556666:failed"}),
    (lambda_api.plugin, {"function": "orders"}),
    (dynamodb_store.plugin, {"url": "dynamodb://poller-state?identity=billing"}),
]


@pytest.mark.parametrize(("plugin", "given"), PLUGINS, ids=lambda value: getattr(value, "name", ""))
@on_a_loop
async def test_every_kind_of_plug_in_takes_an_identity_and_opens_nothing_for_an_unknown_one(
    plugin: Any, given: dict[str, Any]
) -> None:
    extra = {} if "url" in given else {"identity": "billing"}
    settings = plugin.settings.model_validate({**given, **extra})
    assert settings.identity == "billing"
    async with reached(Account(), PLAIN) as env:
        with pytest.raises(InvalidConfiguration, match="identity 'billing' is not below identities"):
            async with (plugin.look or plugin.open)(settings, env):
                pass


def trust(external_id: str) -> str:
    """A trust policy that asks for an external id."""
    condition = {"StringEquals": {"sts:ExternalId": external_id}}
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "sts:AssumeRole",
        "Condition": condition,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.parametrize(("external_id", "works"), [("agreed", True), ("other", False), (None, False)])
def test_an_emulator_gives_the_role_to_whoever_knows_its_external_id(
    external_id: str | None, works: bool, monkeypatch: pytest.MonkeyPatch, account: str
) -> None:
    monkeypatch.setenv("AUTH", "true")

    async def run(url: str) -> None:
        role = f"arn:aws:iam::{account}:role/poller"
        known = {"billing": AwsIdentity(name="billing", role_arn=role, external_id=external_id)}
        env = Environment(LoopClock(), region="eu-west-1", endpoint_url=url, identities=known)
        try:
            iam = await client(env, "iam", "eu-west-1")
            await iam.create_role(RoleName="poller", AssumeRolePolicyDocument=trust("agreed"))
            allowed = {"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}
            await iam.put_role_policy(
                RoleName="poller",
                PolicyName="queues",
                PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
            )
            service = await client(env.acting_as("billing"), "sqs", "eu-west-1")
            with mapped("sqs ListQueues"):
                await service.list_queues()
        finally:
            await env.shared.close()

    with ministack() as emulator:
        if works:
            asyncio.run(run(emulator.url))
        else:
            with pytest.raises(AccessDenied, match="cannot be assumed: sts AssumeRole: AccessDenied"):
                asyncio.run(run(emulator.url))
