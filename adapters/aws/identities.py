"""Owns as whom AWS is called: the sessions of the AWS library, one an identity, and the roles that they assume.

The credentials of an assumed role are asked for at the first call that needs them, and again before they expire, by every way of
sending: the library asks them for a signature, and so do repeated requests. A role that cannot be assumed fails the call that
needed it, with RoleTrouble, and never the making of a client.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioDeferredRefreshableCredentials
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore import exceptions as boto
from botocore.credentials import ReadOnlyCredentials
from botocore.parsers import ResponseParserError

from adapters.aws.region import SESSION_VARIABLES
from adapters.bounded_answers import BoundedSession, bound_credentials
from poller.domain.errors import InvalidConfiguration
from poller.plugins import AwsIdentity, Environment

SESSION_NAME = "esm-poller"
"""The name of a role's session that has none in the settings."""
STS_S_MAX = 10.0
"""The longest silence of STS, and the longest way to it."""
REFUSED_S = 5.0
"""How long a role that could not be assumed counts as such without asking again: all shards of a mapping ask at once."""
_METHOD = "assume-role"
_TROUBLE = (
    boto.BotoCoreError,
    boto.ClientError,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,
    # The library, and this module, read an answer as if it could only have the documented form.
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What asking STS raises."""


class RoleTrouble(Exception):
    """The credentials of an assumed role cannot be had now. `cause` is what the AWS library raised."""

    def __init__(self, identity: AwsIdentity, cause: Exception) -> None:
        super().__init__(identity.role_arn)
        self.identity = identity
        self.cause = cause


class AssumedRole(AioDeferredRefreshableCredentials):
    """The credentials of a role, refreshed by whoever needs them. Those that are still good are used while STS fails."""

    async def _protected_refresh(self, is_mandatory: bool) -> None:
        # The library's annotations do not have what its own subclasses use.
        held: Any = self
        try:
            found = await held._refresh_using()
        except RoleTrouble:
            if is_mandatory:
                raise
            return
        held._set_from_data(found)
        held._frozen_credentials = ReadOnlyCredentials(
            found["access_key"], found["secret_key"], found["token"]
        )


class RoleAssumer:
    """Asks STS for the credentials of one identity's role, with the session's own credentials."""

    def __init__(self, session: AioSession, env: Environment, *, region: str | None) -> None:
        """`region` counts where neither settings nor AWS's variables and profile name one."""
        assert env.identity is not None, "a role without an identity"
        self._session = session
        self._identity = env.identity
        self._url = env.endpoint_urls.get("sts", env.endpoint("sts"))
        given = env.identity.region or env.region
        self._region = given or session.get_config_variable("region") or region
        self._trouble: RoleTrouble | None = None
        self._ask_at = 0.0

    async def __call__(self) -> dict[str, str]:
        """The credentials as the library keeps them. Raises RoleTrouble."""
        now = asyncio.get_running_loop().time()
        if self._trouble is not None and now < self._ask_at:
            raise RoleTrouble(self._identity, self._trouble.cause) from self._trouble.cause
        try:
            found = await self._asked()
        except _TROUBLE as error:
            self._trouble, self._ask_at = RoleTrouble(self._identity, error), now + REFUSED_S
            raise self._trouble from error
        self._trouble = None
        return found

    async def _asked(self) -> dict[str, str]:
        identity = self._identity
        given = {"ExternalId": identity.external_id} if identity.external_id is not None else {}
        options = AioConfig(
            http_session_cls=BoundedSession,
            connect_timeout=STS_S_MAX,
            read_timeout=STS_S_MAX,
            retries={"mode": "standard", "total_max_attempts": 1},
            user_agent_extra="esm-poller",
        )
        making = self._session.create_client(
            "sts", region_name=self._region, endpoint_url=self._url, config=options
        )
        async with making as service:
            answer = await service.assume_role(
                RoleArn=identity.role_arn,
                RoleSessionName=identity.session_name or SESSION_NAME,
                **given,
            )
        made = answer["Credentials"]
        return {
            "access_key": made["AccessKeyId"],
            "secret_key": made["SecretAccessKey"],
            "token": made["SessionToken"],
            "expiry_time": made["Expiration"].isoformat(),
        }


class _Given:
    """A chain of credentials that ends at once."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> Any:
        return self._credentials


async def session_of(env: Environment, *, raw: bool, region: str | None) -> AioSession:
    """The session of the environment's identity. `raw`: answers keep blobs as base64 text and times as they were sent.

    `region` is that of its first client.
    Raises InvalidConfiguration for a profile that does not exist.
    """
    name = "" if env.identity is None else env.identity.name
    try:
        return await env.shared.get(
            f"aws session raw={raw} as={name}", lambda: _session(env, raw=raw, region=region)
        )
    except boto.ProfileNotFound as error:
        whose = f"identity {name}" if name else "AWS_PROFILE"
        raise InvalidConfiguration(
            [f"{whose}: {error}; correct the profile's name, or write it into ~/.aws/config"]
        ) from error


@asynccontextmanager
async def _session(env: Environment, *, raw: bool, region: str | None) -> AsyncIterator[AioSession]:
    session = _bounded_session(env)
    role = env.identity is not None and env.identity.role_arn is not None
    if role:
        own = _bounded_session(env)
        credentials = AssumedRole(RoleAssumer(own, env, region=region), _METHOD)
        session.register_component("credential_provider", _Given(credentials))
    if raw:
        if not role:
            # Role providers parse expiry times through their session's parsers, so they stay with an ordinary session.
            chain = _bounded_session(env).get_component("credential_provider")
            session.register_component("credential_provider", chain)
        parsers = session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=_as_sent, blob_parser=_as_sent)
    yield session


def _bounded_session(env: Environment) -> AioSession:
    """A session whose answers are bounded, also those that its chain of credentials gets: of STS, of SSO, of the machine."""
    session = get_session(SESSION_VARIABLES)
    if env.identity is not None and env.identity.profile is not None:
        session.set_config_variable("profile", env.identity.profile)
    session.set_default_client_config(AioConfig(http_session_cls=BoundedSession))
    with suppress(boto.BotoCoreError):
        # A profile that is wrong is told when a client is made.
        for provider in session.get_component("credential_provider").providers:
            for name in ("_fetcher", "_role_fetcher"):
                fetches = getattr(getattr(provider, name, None), "_session", None)
                if isinstance(fetches, AIOHTTPSession):
                    bound_credentials(fetches)
    return session


def _as_sent(value: object) -> object:
    return value
