"""Owns the settings of the server, and which of them may not be combined."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from poller.config.field_types import Address, host_name, listen_address
from poller.config_errors.error_messages import FieldError, refused
from poller.domain.access import Reads
from poller.start_folder import from_start_folder

OPEN_CHANGES = (
    "would let everybody who reaches this address change mappings; listen on 127.0.0.1 or [::1], "
    "or set api.access_keys_file or api.tokens_file instead"
)
OPEN_TO_CHANGE = "reads would need a credential, and changes none; remove it, or remove api.allow_unauthenticated and set api.tokens_file"
NOBODY_READS = (
    "reads of /v1, as poller status makes them, need a token here, and there is none; set api.tokens_file, or write "
    "api.reads: open if everybody who reaches this address may read"
)

type FileOfSecrets = Annotated[Path, AfterValidator(from_start_folder)]


class ApiSettings(BaseModel):
    """Who may read what runs, and who may change mappings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access_keys_file: FileOfSecrets | None = None
    tokens_file: FileOfSecrets | None = None
    reads: Reads | None = None
    """None: open if only this machine reaches the address."""
    show_payloads: bool = False
    """Whether operators may see what is in the records of a shard."""
    page: bool = True
    """Whether the page at `/` is served, and the updates that it reads."""
    allow_unauthenticated: bool = False
    allowed_hosts: tuple[Annotated[str, AfterValidator(host_name)], ...] = ()
    """Names and addresses that the header `Host` may have, in addition to those of loopback."""


class ServerSettings(BaseModel):
    """`listen` is `host:port`; port 0 takes any free one. `[::]` listens on IPv4 too.

    `listening` is the descriptor of a socket that listens there already, which this process has inherited.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(listen_address)]
    api: ApiSettings = ApiSettings()
    listening: int | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.api.allow_unauthenticated and not self.address.loopback:
            wrong, _, remedy = OPEN_CHANGES.partition("; ")
            raise refused([FieldError("api.allow_unauthenticated", wrong, remedy, reads=("listen",))])
        if self.api.allow_unauthenticated and self.api.reads is Reads.TOKEN:
            wrong, _, remedy = OPEN_TO_CHANGE.partition("; ")
            raise refused([FieldError("api.reads", wrong, remedy, reads=("api.allow_unauthenticated",))])
        return self

    @property
    def address(self) -> Address:
        """The parsed `listen`."""
        return Address.parse(self.listen)


def reads_of(settings: ApiSettings, *, loopback: bool) -> Reads:
    """Returns who may read. `loopback`: only this machine reaches the server."""
    return settings.reads or (Reads.OPEN if loopback else Reads.TOKEN)


def doubts(settings: ServerSettings) -> list[FieldError]:
    """Returns what does not prevent a start but may be a mistake: nobody could read what runs."""
    api, loopback = settings.api, settings.address.loopback
    if api.tokens_file or api.allow_unauthenticated or reads_of(api, loopback=loopback) is Reads.OPEN:
        return []
    wrong, _, remedy = NOBODY_READS.partition("; ")
    return [FieldError("api.reads" if api.reads else "listen", wrong, remedy, mild=True)]
