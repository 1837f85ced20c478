"""Owns how Amazon resource names and function names are read and written."""

import re
from dataclasses import dataclass

FUNCTION_NAME_CHARS_MAX = 256
"""A FunctionName as given: name, partial ARN or ARN, with or without a qualifier (spec 2)."""
BARE_NAME_CHARS_MAX = 64

_FUNCTION = re.compile(
    r"(?:arn:(?P<partition>aws[a-z-]*):lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):function:"
    r"|(?P<partial>\d{12}):function:|function:)?"
    rf"(?P<name>[A-Za-z0-9_-]{{1,{BARE_NAME_CHARS_MAX}}})(?::(?P<qualifier>\$LATEST|[A-Za-z0-9_-]{{1,128}}))?"
)
_PARTS = 6


@dataclass(frozen=True, slots=True)
class Arn:
    """The six parts of an ARN; `resource` keeps its slashes and colons."""

    partition: str
    service: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> "Arn":
        """Raises ValueError if `text` is not an ARN."""
        parts = text.split(":", _PARTS - 1)
        if len(parts) != _PARTS or parts[0] != "arn" or not all((parts[1], parts[2], parts[5])):
            raise ValueError("not an ARN")
        return cls(*parts[1:])


@dataclass(frozen=True, slots=True)
class FunctionName:
    """A FunctionName's parts; region, account and partition are empty where it does not say."""

    name: str
    qualifier: str = ""
    partition: str = ""
    region: str = ""
    account: str = ""

    @classmethod
    def parse(cls, text: str) -> "FunctionName":
        """Bare name, `ACCOUNT:function:NAME` or ARN, each with an optional qualifier; raises ValueError otherwise."""
        match = _FUNCTION.fullmatch(text)
        if match is None or len(text) > FUNCTION_NAME_CHARS_MAX:
            raise ValueError("not a function name")
        return cls(
            name=match["name"],
            qualifier=match["qualifier"] or "",
            partition=match["partition"] or "",
            region=match["region"] or "",
            account=match["account"] or match["partial"] or "",
        )

    def arn(self, source: Arn) -> str:
        """The function's ARN with the qualifier as given; parts that are missing come from the source (spec 10.4)."""
        partition, region = self.partition or source.partition, self.region or source.region
        base = f"arn:{partition}:lambda:{region}:{self.account or source.account}:function:{self.name}"
        return f"{base}:{self.qualifier}" if self.qualifier else base
