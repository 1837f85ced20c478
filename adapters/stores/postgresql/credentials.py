"""Owns the password of a connection: from a file, which may be replaced at any time, or a token of RDS. It is shown nowhere."""

import asyncio
from pathlib import Path
from urllib.parse import urlencode

from botocore import exceptions as boto
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from adapters.aws.identities import RoleTrouble, session_of
from adapters.stores.postgresql.settings import PostgresSettings, Server
from poller.domain.errors import AccessDenied, InvalidConfiguration, ServiceUnavailable
from poller.plugins import Environment
from poller.start_folder import from_start_folder

TOKEN_S = 900
"""How long RDS takes a token. It counts when a connection is made, and not later."""
PASSWORD_BYTES_MAX = 4096
_SERVICE = "rds-db"


class Passwords:
    """The password for each new connection."""

    def __init__(self, settings: PostgresSettings, env: Environment) -> None:
        self._settings = settings
        self._env = env.acting_as(settings.identity)

    async def password(self, server: Server) -> str | None:
        """Returns the password for this server; None if libpq looks for it. Raises AccessDenied and ServiceUnavailable."""
        if self._settings.iam:
            return await self._token(server)
        if self._settings.password_file is not None:
            return await asyncio.to_thread(read_password, from_start_folder(self._settings.password_file))
        return None

    async def _token(self, server: Server) -> str:
        identity = self._env.identity
        region = self._settings.region or (identity and identity.region) or self._env.region
        session = await session_of(self._env, raw=False, region=region)
        region = region or session.get_config_variable("region")
        if region is None:
            raise InvalidConfiguration(["store: iam needs a region; add region=REGION to the URL"])
        try:
            credentials = await session.get_credentials()
            if credentials is None:
                raise AccessDenied(
                    "store: iam needs AWS credentials, and there are none; set the AWS variables"
                )
            frozen = await credentials.get_frozen_credentials()
        except RoleTrouble as trouble:
            raise ServiceUnavailable(
                f"store: the role of the identity cannot be assumed: {trouble}"
            ) from trouble
        except boto.BotoCoreError as error:
            raise ServiceUnavailable(f"store: no AWS credentials: {type(error).__name__}") from error
        query = urlencode({"Action": "connect", "DBUser": self._settings.place.user})
        request = AWSRequest("GET", f"https://{server}/?{query}")
        SigV4QueryAuth(frozen, _SERVICE, region, expires=TOKEN_S).add_auth(request)
        return str(request.url).removeprefix("https://")


def read_password(path: Path) -> str:
    """Returns the first line of a file; raises AccessDenied without showing any of it."""
    try:
        with path.open("rb") as file:
            content = file.read(PASSWORD_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no path"
        raise AccessDenied(f"store: password_file {path}: {why}; correct its path or permissions") from error
    line = content.partition(b"\n")[0].removesuffix(b"\r")
    if len(content) > PASSWORD_BYTES_MAX or not line or b"\0" in line:
        raise AccessDenied(f"store: password_file {path}: its first line is no password; write it there")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise AccessDenied(f"store: password_file {path}: is not UTF-8; write it in UTF-8") from None
