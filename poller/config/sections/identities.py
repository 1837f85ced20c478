"""Owns the identities as users write them: by which credentials, and where, services of AWS are called."""

import re
from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, StringConstraints, model_validator

from poller.config.field_types import Url, assumable_role
from poller.config.sections.section import Section
from poller.config_errors.error_messages import FieldError, refused
from poller.plugins import AwsIdentity

_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


def _external_id(text: str) -> str:
    if not _EXTERNAL_ID.fullmatch(text):
        raise ValueError("not an external id; write 2 to 1224 letters, digits and + = , . @ : / - _")
    return text


def _session_name(text: str) -> str:
    if not _SESSION_NAME.fullmatch(text):
        raise ValueError("not a session's name; write 2 to 64 letters, digits and + = , . @ - _")
    return text


type ProfileName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class IdentitySetting(Section):
    """One identity. Without `profile` its credentials are the process's own; with `role_arn` they are used to assume the role."""

    role_arn: Annotated[str, AfterValidator(assumable_role)] | None = None
    external_id: Annotated[str, AfterValidator(_external_id)] | None = None
    session_name: Annotated[str, AfterValidator(_session_name)] | None = None
    profile: ProfileName | None = None
    region: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,31}$")] | None = None
    endpoint_url: Url | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if found := list(self._objections()):
            raise refused(found)
        return self

    def _objections(self) -> Iterator[FieldError]:
        if not (self.role_arn or self.profile or self.region or self.endpoint_url):
            yield FieldError("role_arn", "the identity is the process's own", "write role_arn, or remove it")
        elif self.role_arn is None:
            for name in ("external_id", "session_name"):
                if getattr(self, name) is not None:
                    yield FieldError(
                        name, "is for an assumed role only", "add role_arn, or remove it", ("role_arn",)
                    )

    def named(self, name: str) -> AwsIdentity:
        """The identity as plug-ins get it."""
        return AwsIdentity(name=name, **self.model_dump())
