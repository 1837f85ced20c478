"""Owns what a user may set of the server, and where it may listen."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

from pydantic import BaseModel, ConfigDict, FilePath, field_validator, model_validator

PORT_MAX = 65_535
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})")
OPEN_CHANGES = (
    "allow_unauthenticated would let everybody who reaches this address change mappings: listen on 127.0.0.1 or [::1], "
    "or set api.access_keys_file or api.tokens_file instead"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a name or an IP address, and a port (0: any free one)."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `host:port`, an IPv6 address in brackets; raises ValueError with the remedy."""
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"]) > PORT_MAX:
            raise ValueError(f"{text!r} is no address; write host:port, such as 127.0.0.1:8080 or [::]:8080")
        return cls(found["six"] or found["host"], int(found["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it, as far as the text alone tells."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class ApiSettings(BaseModel):
    """Who may change things. Reads are open to everybody who reaches the address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access_keys_file: FilePath | None = None
    tokens_file: FilePath | None = None
    allow_unauthenticated: bool = False


class ServerSettings(BaseModel):
    """`listen` is `host:port`; port 0 takes any free one. `[::]` listens on IPv4 too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str
    api: ApiSettings = ApiSettings()

    @field_validator("listen")
    @classmethod
    def _address(cls, text: str) -> str:
        return str(Address.parse(text))

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.api.allow_unauthenticated and not self.address.loopback:
            raise ValueError(f"listen is {self.listen!r}, beyond loopback, and api.{OPEN_CHANGES}")
        return self

    @property
    def address(self) -> Address:
        """`listen`, parsed."""
        return Address.parse(self.listen)
