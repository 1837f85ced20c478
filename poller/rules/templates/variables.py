"""Owns the variables of Serverless Framework: `${self:custom.name, 'default'}` and the like, in each other and with defaults.

Only what the file and the user say is resolved. Variables of the environment are not read: they may be secret.
"""

import re
from collections.abc import Sequence
from typing import Any

from poller.rules.templates.values import (
    DEPTH_MAX,
    STEPS_MAX,
    TEXT_CHARS_MAX,
    Given,
    InvalidTemplate,
    Unresolved,
    joined,
    table,
)

_VARIABLE = re.compile(r"\$\{([a-zA-Z]{1,32}(?:\([^(){}$]{0,128}\)|:(?!:))[^{}$]{0,512})\}")
"""The innermost variables of a text. Those of Fn::Sub have no colon, or two."""
_QUOTED = 2
ROUNDS_MAX = 20
"""Levels of variables inside variables."""


class Variables:
    """Resolves the variables of one serverless.yml."""

    def __init__(self, service: dict[str, Any], given: Given) -> None:
        self._service = service
        self._given = given
        self._open: list[str] = []
        self._steps = 0
        self._depth = 0

    @property
    def stage(self) -> object:
        """The stage: what the user says, else the provider's, else `dev`."""
        given = self._given.parameters.get("stage") or self._given.parameters.get("opt:stage")
        return given or self.value(table(self._service.get("provider")).get("stage") or "dev")

    @property
    def region(self) -> object:
        """The region: what the user says, else the provider's, else the framework's default."""
        return self._given.region or self.value(
            table(self._service.get("provider")).get("region") or "us-east-1"
        )

    def value(self, node: object) -> Any:
        """The value with its variables resolved, as far as that is possible."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise InvalidTemplate(f"has more than {STEPS_MAX} values to resolve; cut what has no mappings")
        if self._depth >= DEPTH_MAX:
            return Unresolved("<value>", f"nested deeper than {DEPTH_MAX} levels")
        self._depth += 1
        try:
            match node:
                case dict():
                    return {name: self.value(each) for name, each in node.items()}
                case list():
                    return [self.value(each) for each in node]
                case str():
                    return self._text(node)
                case _:
                    return node
        finally:
            self._depth -= 1

    def _text(self, text: str) -> object:
        for _ in range(ROUNDS_MAX):
            whole = _VARIABLE.fullmatch(text)
            if whole is not None:
                return self._variable(whole[1])
            parts: list[object] = []
            end = 0
            for match in _VARIABLE.finditer(text):
                parts += [text[end : match.start()], self._variable(match[1])]
                end = match.end()
            if not end:
                return text
            found = joined([*parts, text[end:]])
            if isinstance(found, Unresolved):
                return found
            text = found
        return Unresolved("<value>", f"more than {ROUNDS_MAX} levels of variables")

    def _variable(self, text: str) -> object:
        """The first source of a variable that has a value."""
        self._steps += 1
        why: Unresolved | None = None
        for index, source in enumerate(_sources(text)):
            literal = _literal(source, first=index == 0)
            if literal is not None:
                return literal[0]
            found = self._source(source)
            if found is not None and not isinstance(found, Unresolved):
                return found
            why = why or (found if isinstance(found, Unresolved) else None)
        shown = text[:80]
        return why or Unresolved(
            f"<{shown}>", f"{shown} has no value; give --parameter {_sources(text)[0][:80]}=VALUE"
        )

    def _source(self, source: str) -> object:
        kind, _, name = source.partition(":")
        given = self._given.parameters
        if source in given:
            return given[source]
        match kind:
            case "self":
                return self._own(name, name.split(".") if name else [])
            case "opt":
                return self._option(name)
            case "param":
                return self._parameter(name)
            case "sls" if name == "stage":
                return self.stage
            case "aws" if name == "region":
                return self.region
            case "aws" if name == "accountId":
                return self._given.account or Unresolved(
                    "<account>", "the account is not known; give --account ACCOUNT"
                )
            case _ if kind.startswith("file("):
                return Unresolved(
                    f"<{source}>", f"is in another file, which is not read; give --parameter {source}=VALUE"
                )
            case "env":
                why = f"is a variable of the environment, which is not read; give --parameter {source}=VALUE"
                return Unresolved(f"<{source}>", why)
            case _:
                return Unresolved(f"<{source}>", f"{kind} is not looked up; give --parameter {source}=VALUE")

    def _option(self, name: str) -> object:
        if name == "region" and self._given.region:
            return self._given.region
        return self._given.parameters.get(name)

    def _parameter(self, name: str) -> object:
        """A parameter of the stage, or one for all stages, in the forms of version 3 and 4 of the framework."""
        given = self._given.parameters.get(name)
        if given is not None or not {"params", "stages"} & self._service.keys():
            return given
        for stage in (self.stage, "default"):
            if isinstance(stage, Unresolved):
                return stage
            for place in (["params", str(stage), name], ["stages", str(stage), "params", name]):
                found = self._own(".".join(place), place)
                if found is not None:
                    return found
        return None

    def _own(self, path: str, parts: Sequence[str]) -> object:
        if path in self._open:
            return Unresolved(f"<self:{path}>", f"self:{path} refers to itself")
        node: Any = self._service
        for part in parts:
            if isinstance(node, str):
                node = self.value(node)
            if isinstance(node, Unresolved):
                return node
            match node:
                case dict() if part in node:
                    node = node[part]
                case list() if part.isdecimal() and int(part) < len(node):
                    node = node[int(part)]
                case _:
                    return None
        self._open.append(path)
        try:
            return self.value(node)
        finally:
            self._open.pop()


def _sources(text: str) -> list[str]:
    """The parts of a variable between commas that are not in quotes."""
    parts, quote = [""], ""
    for character in text[:TEXT_CHARS_MAX]:
        if character == "," and not quote:
            parts.append("")
            continue
        if character in "'\"":
            quote = "" if character == quote else quote or character
        parts[-1] += character
    return [each.strip() for each in parts]


def _literal(source: str, *, first: bool) -> tuple[object] | None:
    """The value of a default that is written out; None if it names a source."""
    if len(source) >= _QUOTED and source[0] == source[-1] and source[0] in "'\"":
        return (source[1:-1],)
    if first or re.match(r"[a-zA-Z]{1,32}(\([^()]{0,128}\)|:)", source):
        return None
    words: dict[str, object] = {"true": True, "false": False, "null": ""}
    return (words.get(source, int(source) if source.isdecimal() else source),)
