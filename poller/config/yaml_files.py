"""Owns how configuration files are read: a safe subset of YAML, with limits, and with errors that name the line.

Scalars are those of YAML 1.2: `on`, `yes`, `12:30` and dates are texts. Tags and duplicate keys are refused.
`signature` tells whether a file has changed.
"""

import errno
import os
import re
import stat
from hashlib import blake2b, file_digest
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from poller.config_errors.error_messages import printable
from poller.config_errors.yaml_remedies import remedy
from poller.domain.errors import InvalidConfiguration
from poller.domain.untrusted.texts import cut
from poller.start_folder import from_start_folder

FILE_BYTES_MAX = 10 * 1024 * 1024
DEPTH_MAX = 64
"""Levels of nesting."""
NODES_MAX = 1_000_000
"""Values in a document. Each alias counts as many values as its anchor has."""

_INTRINSIC = re.compile(
    "!(And|Base64|Cidr|Condition|Equals|FindInMap|GetAZs|GetAtt|If|ImportValue|Join|Not|Or|Ref|Select|Split|Sub|Transform)"
)
"""CloudFormation's functions in their short form."""
_STR = "tag:yaml.org,2002:str"
_SCALARS = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?(?:0|[1-9][0-9]{0,30})", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?[0-9]{1,30}(?:\.[0-9]{0,30}(?:[eE][-+]?[0-9]{1,3})?|[eE][-+]?[0-9]{1,3})",
        list("-+0123456789"),
    ),
    "tag:yaml.org,2002:merge": (r"<<", ["<"]),
}

PASSING = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR, errno.ESTALE}
)
"""Errors that say nothing about a file: the process or the system lacks something now, or a network file system was disturbed."""

type Signature = tuple[object, ...] | None
"""Identity, time of modification and content of a file; None if it does not exist."""


class NameNotText(InvalidConfiguration):
    """Some names are not texts but numbers, true or the like. `rest` is the document without them."""

    def __init__(self, problems: list[str], rest: dict[str, Any]) -> None:
        super().__init__(problems)
        self.rest = rest


class UnreadableNow(InvalidConfiguration):
    """The system could not read the file at this moment. The file itself may be right: read it again later."""


class StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses tags, duplicate keys and deep nesting."""

    twice = False
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to declare them; filled below, never changed again
    _depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        self.check_tag(getattr(event, "tag", None), event.start_mark)
        if not isinstance(event, yaml.AliasEvent):
            # YAML 1.2 lets a node have the anchor of an earlier one, PyYAML does not. An alias means the last one before it.
            self.anchors.pop(getattr(event, "anchor", None), None)
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _problem(f"nested deeper than {DEPTH_MAX} levels; flatten it", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        # Duplicates are checked here. Later, merge keys have added keys of other mappings.
        if isinstance(node, MappingNode) and not self.twice:
            _refuse_duplicates(node)
        elif isinstance(node, ScalarNode):
            _refuse_surrogates(node)
        return node

    def check_tag(self, tag: str | None, mark: yaml.Mark) -> None:
        """Refuses every tag but those that change nothing."""
        if tag not in {None, "!", _STR}:
            raise refused_tag(str(tag), mark)


class _TwiceLoader(StrictLoader):
    """A loader that allows duplicate keys. The caller reports them."""

    twice = True


def refused_tag(tag: str, mark: yaml.Mark | None) -> yaml.MarkedYAMLError:
    """The error for a tag that is not supported."""
    return _problem(_tag_refused(tag), mark)


def _tag_refused(tag: str) -> str:
    if _INTRINSIC.fullmatch(tag):
        return f"CloudFormation's {tag} is not resolved here; write the value itself"
    short = tag.replace("tag:yaml.org,2002:", "!!")
    return f"the tag {short} is not supported; write the value itself"


def _refuse_duplicates(node: MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if key.value in seen:
                raise _problem(f"the key {_cut(key.value)} is there twice; remove one", key.start_mark)
            seen.add(key.value)


def _refuse_surrogates(node: ScalarNode) -> None:
    if any("\ud800" <= char <= "\udfff" for char in node.value):
        raise _problem("half a surrogate pair is no text; write the character itself", node.start_mark)


for _tag, (_pattern, _first) in _SCALARS.items():
    StrictLoader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


class _Refused(yaml.MarkedYAMLError):
    """An error of ours, which says what to do."""


def _problem(text: str, mark: yaml.Mark | None) -> _Refused:
    return _Refused(problem=text, problem_mark=mark)


def _cut(text: str) -> str:
    return repr(cut(text, 60))


def read_document(path: Path) -> dict[str, Any]:
    """The file's top-level mapping, empty for an empty file. A relative path is relative to the folder of the start.

    Raises InvalidConfiguration with one line.
    """
    return parse_document(_text(path), name=str(path))


def parse_document(text: str, *, name: str) -> dict[str, Any]:
    """The top-level mapping of a YAML text. Raises InvalidConfiguration with one line that begins with `name`."""
    document = single_document(text, StrictLoader, name=name)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidConfiguration(
            [f"{name}: holds no settings; write lines like `name: value` at the top level"]
        )
    odd: list[str] = []
    rest = _named(document, "", odd)
    if odd:
        raise NameNotText(
            [printable(f"{name}: {each}: its name is not a text; put the name in quotes") for each in odd],
            rest,
        )
    return document


def single_document(
    text: str, loader_type: type[StrictLoader], *, name: str, nodes_max: int = NODES_MAX
) -> object:
    """The value of a YAML text; None if it is empty. Raises InvalidConfiguration with one line that begins with `name`."""
    try:
        return _load(text, loader_type, nodes_max)
    except yaml.MarkedYAMLError as error:
        raise InvalidConfiguration([_located(error, name)]) from None
    except (ValueError, OverflowError):
        raise InvalidConfiguration(
            [f"{name}: an escape like \\U stands for no character; write it out"]
        ) from None
    except yaml.YAMLError as error:
        reason = str(getattr(error, "reason", "not readable"))
        raise InvalidConfiguration([f"{name}: not YAML: {reason}; save the file as plain text"]) from None


class DocumentLine(NamedTuple):
    """One line `name: value` of a document, with the number of its line. `members` are the lines of a value that is a mapping."""

    line: int
    name: object
    value: object
    members: "tuple[DocumentLine, ...]" = ()


def parse_entries(text: str) -> list[DocumentLine]:
    """The top-level entries of a YAML text as written, including names that are not texts and duplicates. So are their members.

    Raises InvalidConfiguration with one line. It may quote parts of the text.
    """
    try:
        loader = _TwiceLoader(text)
        try:
            return _entries(loader)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise InvalidConfiguration([_located(error, "")]) from None
    except (ValueError, OverflowError, yaml.YAMLError):
        raise InvalidConfiguration([": cannot be read"]) from None


def _entries(loader: StrictLoader) -> list[DocumentLine]:
    node = loader.get_single_node()
    if node is None or (isinstance(node, ScalarNode) and loader.construct_document(node) is None):
        return []
    if not isinstance(node, MappingNode):
        raise _problem("holds no settings", node.start_mark)
    if _weight(node, {}) > NODES_MAX:
        raise _problem(f"more than {NODES_MAX} values, aliases included", node.start_mark)
    return [_line(loader, key, value, _members(loader, value)) for key, value in node.value]


def _members(loader: StrictLoader, node: Node) -> tuple[DocumentLine, ...]:
    # Pairs are taken as they are written: constructing the mapping merges others into it.
    pairs = list(node.value) if isinstance(node, MappingNode) else []
    return tuple(_line(loader, key, value) for key, value in pairs)


def _line(
    loader: StrictLoader, key: Node, value: Node, members: tuple[DocumentLine, ...] = ()
) -> DocumentLine:
    name = loader.construct_object(key, deep=True)
    return DocumentLine(key.start_mark.line + 1, name, loader.construct_object(value, deep=True), members)


def _named(value: Any, place: str, odd: list[str]) -> Any:
    """`value` without entries whose names are not texts. Their places are added to `odd`."""
    if isinstance(value, dict):
        kept = {}
        for key, inner in value.items():
            if isinstance(key, str):
                kept[key] = _named(inner, f"{place}.{key}" if place else key, odd)
            else:
                # The name is shown as in YAML: true and null, not Python's True and None.
                odd.append(f"{place}[{'null' if key is None else str(key).lower()}]")
        return kept
    if isinstance(value, list):
        return [_named(inner, f"{place}[{index}]", odd) for index, inner in enumerate(value)]
    return value


def _text(path: Path) -> str:
    try:
        content = _content(from_start_folder(path))
    except FileNotFoundError:
        raise InvalidConfiguration([f"{path}: no such file; give the path of a file with --config"]) from None
    except IsADirectoryError:
        raise InvalidConfiguration(
            [f"{path}: is a directory; give the path of a file with --config"]
        ) from None
    except PermissionError:
        raise InvalidConfiguration(
            [f"{path}: may not be read; give this user the right to read it"]
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in PASSING:
            raise _unreadable_now(path, error) from error
        raise InvalidConfiguration([f"{path}: cannot be read: {error}"]) from None
    if content is None:
        raise InvalidConfiguration([f"{path}: is no regular file; give the path of a file with --config"])
    if len(content) > FILE_BYTES_MAX:
        raise InvalidConfiguration([f"{path}: larger than {FILE_BYTES_MAX} bytes; is it the right file?"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(
            [f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"]
        ) from None


def _content(path: Path) -> bytes | None:
    """The beginning of a file, or all of a pipe that was handed to this process, such as /dev/stdin. None for what could never end.

    Nobody may ever write into a FIFO that has a name, and a daemon reads its file again.
    """
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return _all_of(file)
        if stat.S_ISFIFO(mode) and not os.path.exists(os.path.realpath(path)):
            os.set_blocking(file.fileno(), True)
            return _all_of(file)
        return b"" if path == Path(os.devnull) else None


def _all_of(file: FileIO) -> bytes:
    """What can be read, one byte more than is allowed at most."""
    parts = bytearray()
    while len(parts) <= FILE_BYTES_MAX and (part := file.read(FILE_BYTES_MAX + 1 - len(parts))):
        parts += part
    return bytes(parts)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _load(text: str, loader_type: type[StrictLoader], nodes_max: int) -> object:
    loader = loader_type(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _weight(node, {}) > nodes_max:
            raise _problem(f"more than {nodes_max} values, aliases included; write less", node.start_mark)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _weight(node: Node, known: dict[int, int | None]) -> int:
    """How many values a node has, aliases expanded. Refuses a node that contains itself."""
    if id(node) in known:
        weight = known[id(node)]
        if weight is None:
            raise _problem("an alias contains itself; write the value out", node.start_mark)
        return weight
    known[id(node)] = None
    match node:
        case SequenceNode():
            children = list(node.value)
        case MappingNode():
            children = [part for pair in node.value for part in pair]
        case _:
            children = []
    weight = 1 + sum(_weight(child, known) for child in children)
    known[id(node)] = weight
    return weight


def _located(error: yaml.MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
    problem = error.problem or "cannot be read"
    if isinstance(error, _Refused):
        return f"{name}:{where} {problem}"
    told = f"{problem} ({error.context})" if error.context else problem
    return f"{name}:{where} {told}; {remedy(told)}"


def _unreadable_now(path: Path, error: OSError) -> UnreadableNow:
    return UnreadableNow([f"{path}: cannot be read at the moment: {error.strerror}; try again later"])


def signature(path: Path) -> Signature:
    """The signature of the file that `path` leads to. Raises UnreadableNow if there is a file but no way to read it. Symbolic links are followed, so a link to another file counts as a change.

    The content is part of it, because two writes within one tick of the file system's clock have the same time. What is no regular
    file is not read.
    """
    try:
        real = from_start_folder(path).resolve(strict=True)
        found = real.stat()
        with open(real, "rb", buffering=0, opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return str(real), found.st_ino, found.st_mode
            content = file_digest(file, blake2b).digest()
    except OSError as error:
        if error.errno in PASSING:
            raise _unreadable_now(path, error) from error
        return None
    except RuntimeError:
        return None
    return str(real), found.st_ino, found.st_mtime_ns, content
