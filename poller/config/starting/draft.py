"""Owns what a new configuration file will have: settings with comments, and members that are left to be written by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class MemberMark:
    """A member that could not be carried over: what is known of its value, and why it is not more."""

    member: str
    written: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionDraft:
    """An entry below `functions`, with comments above it."""

    name: str
    settings: Mapping[str, Any]
    comments: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingDraft:
    """An item of `mappings`, with comments above it and marks where its members would be."""

    members: Mapping[str, Any]
    marks: Sequence[MemberMark] = ()
    comments: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The whole file. `comments` stand at its top."""

    store: str
    functions: Sequence[FunctionDraft]
    mappings: Sequence[MappingDraft]
    region: str = ""
    listen: str = "127.0.0.1:8080"
    comments: Sequence[str] = field(default_factory=tuple)
