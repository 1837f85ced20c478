"""Owns what a file of secrets may hold: `id: secret` for access keys, `name: token` or `name: {token: …, role: …}` for tokens.

Problems name entries and their members, but never show any other text of the file: it may be a secret in the wrong place.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from poller.config.yaml_files import DocumentLine, parse_entries
from poller.domain.access import Role
from poller.domain.errors import InvalidConfiguration

FILE_BYTES_MAX = 1024 * 1024
ENTRIES_MAX = 1000
NAME_CHARS_MAX = 128
SECRET_CHARS_MAX = 1024
WRONG_MAX = 20
"""Wrong entries of one file that are reported at once."""

type Wrong = tuple[str, str]
"""A problem and its remedy."""
type Reading[Entry] = tuple[Mapping[str, Entry], Sequence[Wrong]]
"""The entries of a file by name, and what is wrong with it. There are no entries if anything is wrong."""
type Read[Entry] = Callable[[bytes], Reading[Entry]]
"""Reads the content of a file."""

ROLES = ", ".join(Role)
ONE_ROLE = f"write one of {ROLES}"
WHOLE = f"write both members, token and role, the role as one of {ROLES}"
_MEMBERS = ("token", "role")
_WHERE = re.compile(r"line \d+, column \d+")
_NAME = re.compile(rf"[\w.@:+=,/-]{{1,{NAME_CHARS_MAX}}}", re.ASCII)
_SECRET = re.compile(rf"[!-~]{{1,{SECRET_CHARS_MAX}}}")
_OTHER_TYPES = {bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and the role of its holder."""

    text: str = field(repr=False)
    role: Role


def read_keys(content: bytes) -> Reading[str]:
    """Reads the secrets of access keys by their ids."""
    entries, wrong = _entries(content)
    wrong = wrong or _all_wrong(entries, lambda each: _text_problems(str(each.name), each.value, "secret"))
    return ({} if wrong else {str(each.name): str(each.value) for each in entries}), wrong


def read_tokens(content: bytes) -> Reading[Token]:
    """Reads tokens by their names. A token without a role is an admin's."""
    entries, wrong = _entries(content)
    wrong = wrong or _all_wrong(entries, _token_problems)
    found = {} if wrong else {str(each.name): _token(each) for each in entries}
    wrong = wrong or list(_shared_tokens(entries, found))[:WRONG_MAX]
    return ({} if wrong else found), wrong


def _entries(content: bytes) -> tuple[list[DocumentLine], list[Wrong]]:
    """The lines of a file; or what is wrong with the file as a whole."""
    if len(content) > FILE_BYTES_MAX:
        return [], [(f"larger than {FILE_BYTES_MAX} bytes", "is it the right file?")]
    try:
        entries = parse_entries(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return [], [("not UTF-8", "save the file as UTF-8")]
    except InvalidConfiguration as error:
        found = _WHERE.search(error.problems[0])
        where = f"{found[0]}: " if found else ""
        return [], [(f"{where}not lines of `name: secret`", "write them so")]
    if not entries:
        return [], [("holds no entry", "write `name: secret`, or remove the setting")]
    if len(entries) > ENTRIES_MAX:
        return [], [(f"more than {ENTRIES_MAX} entries", "remove some")]
    return entries, []


type _Problems = Iterator[tuple[int, Wrong]]
"""The number of a line, and what is wrong there. Line 0 stands for the line of the entry."""


def _all_wrong(entries: Sequence[DocumentLine], problems: Callable[[DocumentLine], _Problems]) -> list[Wrong]:
    found = [
        (f"line {line or each.line}: {what}", remedy)
        for each in entries
        for line, (what, remedy) in (_name_problems(each) or problems(each))
    ]
    return [*found, *_twice(entries)][:WRONG_MAX]


def _name_problems(entry: DocumentLine) -> list[tuple[int, Wrong]]:
    # A wrong name is not shown: it may be a secret on the wrong side of the colon.
    if not isinstance(entry.name, str):
        return [(0, ("the name is read as a number or the like, not as a text", "put it in quotes"))]
    if not _NAME.fullmatch(entry.name):
        wrong = f"the name is no word of at most {NAME_CHARS_MAX} letters, digits and -_.@:+=,/"
        return [(0, (wrong, "write `name: secret`"))]
    return []


def _twice(entries: Sequence[DocumentLine]) -> list[Wrong]:
    seen: dict[object, int] = {}
    return [
        (f"line {each.line}: {each.name} is there twice, first on line {seen[each.name]}", "remove one")
        for each in entries
        if seen.setdefault(each.name, each.line) != each.line
    ]


def _text_problems(place: str, value: object, what: str, line: int = 0) -> _Problems:
    """`what` names the value: secret or token."""
    if value is None:
        yield line, (f"{place}: has no {what}", "write one behind the colon")
    elif not isinstance(value, str):
        kind = _OTHER_TYPES.get(type(value), "several values")
        remedy = "write one text" if kind == "several values" else "put it in quotes"
        yield line, (f"{place}: the {what} is read as {kind}, not as a text", remedy)
    elif not _SECRET.fullmatch(value):
        wrong = f"{place}: the {what} is empty, too long or has spaces"
        yield line, (wrong, f"write 1 to {SECRET_CHARS_MAX} ASCII characters without spaces")


def _token_text_problems(place: str, value: object, line: int = 0) -> _Problems:
    if isinstance(value, str) and value in list(Role):
        # `token: …` and `role: view` without a name above them would make a token of the role.
        yield line, (f"{place}: the token is the word of a role", f"{WHOLE}, below a name")
    else:
        yield from _text_problems(place, value, "token", line)


def _token_problems(entry: DocumentLine) -> _Problems:
    name = str(entry.name)
    if not isinstance(entry.value, dict):
        yield from _token_text_problems(name, entry.value)
        return
    names = [each.name for each in entry.members]
    missing = [each for each in _MEMBERS if each not in names]
    if missing:
        yield 0, (f"{name}: has no {' and no '.join(missing)}", WHOLE)
    for place, member in enumerate(entry.members):
        if member.name not in _MEMBERS:
            yield member.line, (f"{name}: has a member that is neither token nor role", "remove it")
        elif member.name in names[:place]:
            yield member.line, (f"{name}.{member.name}: is there twice", "remove one")
        elif member.name == "token":
            yield from _token_text_problems(f"{name}.token", member.value, member.line)
        elif member.value not in list(Role):
            yield member.line, (f"{name}.role: is no role", ONE_ROLE)


def _token(entry: DocumentLine) -> Token:
    if isinstance(entry.value, dict):
        return Token(str(entry.value["token"]), Role(entry.value["role"]))
    return Token(str(entry.value), Role.ADMIN)


def _shared_tokens(entries: Sequence[DocumentLine], tokens: Mapping[str, Token]) -> Iterator[Wrong]:
    """Two names with one token: nobody could tell who sent it, and with which role."""
    first: dict[str, DocumentLine] = {}
    for each in entries:
        text = tokens[str(each.name)].text if tokens else ""
        same = first.setdefault(text, each)
        if same is not each:
            wrong = f"line {each.line}: {each.name} has the same token as {same.name} on line {same.line}"
            yield wrong, "give each name a token of its own"
