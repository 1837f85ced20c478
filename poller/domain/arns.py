"""Owns how Amazon resource names and function names are read and written."""

import re
from dataclasses import dataclass

FUNCTION_NAME_CHARS_MAX = 256
"""The longest FunctionName: a name, a partial ARN or an ARN, each with or without a qualifier (aws-behaviour#function-name)."""
BARE_NAME_CHARS_MAX = 64

PARTITION = "aws[a-zA-Z0-9-]*"
"""Pattern of a partition: aws, aws-cn, aws-us-gov, aws-iso-b, aws-eusc and future ones."""
REGION = "[a-z0-9-]+"
"""Pattern of a region, for places where only a region can be. It is wide, because emulators have region names of their own."""
ACCOUNT = "[0-9]{12}"
BUCKET = "[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]"
"""Pattern of a bucket's name. Old buckets may have capitals, underscores and more than 63 characters."""
QUALIFIER = r"\$LATEST(?:\.PUBLISHED)?|[A-Za-z0-9_-]{1,128}"
"""Pattern of a qualifier: a version, an alias, $LATEST, or the latest published version."""

_FUNCTION = re.compile(
    rf"(?:arn:(?P<partition>{PARTITION}):lambda:(?P<region>{REGION}):(?P<account>{ACCOUNT}):function:"
    rf"|(?:(?:(?P<partial_region>{REGION}):)?(?P<partial_account>{ACCOUNT}):)?(?:function:)?)"
    rf"(?P<name>[A-Za-z0-9_-]{{1,{BARE_NAME_CHARS_MAX}}})(?::(?P<qualifier>{QUALIFIER}))?"
)
_PARTS = 6
_WITH_FIFO = frozenset({"sqs", "sns"})


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

    @classmethod
    def read(cls, text: str) -> "Arn | None":
        """The parts of `text`; None if it is not an ARN."""
        try:
            return cls.parse(text)
        except ValueError:
            return None

    @property
    def fifo(self) -> bool:
        """Whether this is the ARN of a FIFO queue or topic."""
        return self.service in _WITH_FIFO and self.resource.endswith(".fifo")

    @property
    def function(self) -> str:
        """The function's name, with its qualifier if it has one; empty if this is not a function's ARN."""
        kind, _, name = self.resource.partition(":")
        return name if kind == "function" else ""


@dataclass(frozen=True, slots=True)
class FunctionName:
    """The parts of a FunctionName. Region, account and partition are empty if they were not given."""

    name: str
    qualifier: str = ""
    partition: str = ""
    region: str = ""
    account: str = ""

    @classmethod
    def parse(cls, text: str) -> "FunctionName":
        """Parses a bare name, a partial ARN (`REGION:ACCOUNT:function:NAME` or less) or an ARN, each with an optional qualifier.

        Raises ValueError for anything else.
        """
        match = _FUNCTION.fullmatch(text)
        if match is None or len(text) > FUNCTION_NAME_CHARS_MAX:
            raise ValueError("not a function name")
        return cls(
            name=match["name"],
            qualifier=match["qualifier"] or "",
            partition=match["partition"] or "",
            region=match["region"] or match["partial_region"] or "",
            account=match["account"] or match["partial_account"] or "",
        )

    def arn(self, source: Arn) -> str:
        """The function's ARN. The qualifier stays as given; missing parts are taken from the source (aws-behaviour#function-arn)."""
        partition, region = self.partition or source.partition, self.region or source.region
        base = f"arn:{partition}:lambda:{region}:{self.account or source.account}:function:{self.name}"
        return f"{base}:{self.qualifier}" if self.qualifier else base
