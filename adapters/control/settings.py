"""Owns what a user may set of the server, and where it may listen."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, FilePath, model_validator

from poller.fields import Address, listen_address

OPEN_CHANGES = (
    "allow_unauthenticated would let everybody who reaches this address change mappings: listen on 127.0.0.1 or [::1], "
    "or set api.access_keys_file or api.tokens_file instead"
)


class ApiSettings(BaseModel):
    """Who may change things. Reads are open to everybody who reaches the address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access_keys_file: FilePath | None = None
    tokens_file: FilePath | None = None
    allow_unauthenticated: bool = False


class ServerSettings(BaseModel):
    """`listen` is `host:port`; port 0 takes any free one. `[::]` listens on IPv4 too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(listen_address)]
    api: ApiSettings = ApiSettings()

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.api.allow_unauthenticated and not self.address.loopback:
            raise ValueError(f"listen is {self.listen!r}, beyond loopback, and api.{OPEN_CHANGES}")
        return self

    @property
    def address(self) -> Address:
        """`listen`, parsed."""
        return Address.parse(self.listen)
