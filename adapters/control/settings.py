"""Owns the settings of the server, and which of them may not be combined."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from poller.config.field_types import Address, host_name, listen_address
from poller.config_errors.error_messages import FieldError, refused

OPEN_CHANGES = (
    "would let everybody who reaches this address change mappings; listen on 127.0.0.1 or [::1], "
    "or set api.access_keys_file or api.tokens_file instead"
)


class ApiSettings(BaseModel):
    """Who may change mappings. Reads are open to everybody who can reach the address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access_keys_file: Path | None = None
    tokens_file: Path | None = None
    allow_unauthenticated: bool = False
    allowed_hosts: tuple[Annotated[str, AfterValidator(host_name)], ...] = ()
    """Names and addresses that the header `Host` may have, in addition to those of loopback."""


class ServerSettings(BaseModel):
    """`listen` is `host:port`; port 0 takes any free one. `[::]` listens on IPv4 too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(listen_address)]
    api: ApiSettings = ApiSettings()

    @model_validator(mode="after")
    def _no_open_changes(self) -> Self:
        if self.api.allow_unauthenticated and not self.address.loopback:
            wrong, _, remedy = OPEN_CHANGES.partition("; ")
            raise refused([FieldError("api.allow_unauthenticated", wrong, remedy, reads=("listen",))])
        return self

    @property
    def address(self) -> Address:
        """The parsed `listen`."""
        return Address.parse(self.listen)
