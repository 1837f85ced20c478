"""Owns the files that hold secrets. Each is read when it is opened, and again whenever it changes.

Errors and the log name the entries of a file, but never show any other text of it.
"""

import logging
import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from poller.config.yaml_files import DocumentLine, parse_entries
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.output.log_fields import EVENT

FILE_BYTES_MAX = 1024 * 1024
ENTRIES_MAX = 1000
NAME_CHARS_MAX = 128
SECRET_CHARS_MAX = 1024
WRONG_MAX = 20
"""Wrong entries of one file that are reported at once."""
FRESH_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without a new time stamp, so it is read again."""

REFUSED = "secret_file_refused"
EXPOSED = "file_exposed"
"""Events of the log."""
KEPT = "what it held before stays in force"

log = logging.getLogger("poller.control")

type Wrong = tuple[str, str]
"""A problem and its remedy."""

_WHERE = re.compile(r"line \d+, column \d+")
_NAME = re.compile(rf"[\w.@:+=,/-]{{1,{NAME_CHARS_MAX}}}", re.ASCII)
_SECRET = re.compile(rf"[!-~]{{1,{SECRET_CHARS_MAX}}}")


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What distinguishes the versions of a file. Links are followed, so a link to another file is another version."""

    device: int
    inode: int
    changed_ns: int
    size: int


class SecretFile:
    """A YAML file of `name: secret`. `field` is the setting that names it."""

    def __init__(self, path: Path, *, field: str) -> None:
        """Reads the file; raises InvalidConfiguration with the remedy."""
        self._path = path
        self._place = f"api.{field}: {path}"
        self._stamp: _Stamp | None = None
        self._fresh = False
        self._reported = ""
        self._secrets: Mapping[str, str] = {}
        self._report(EXPOSED, self._read())

    def secrets(self) -> Mapping[str, str]:
        """Returns the secrets by name, as the file has them now, or as it had them last if it cannot be read now."""
        try:
            if self._fresh or self._stamp != _stamp(self._path.stat()):
                self._report(EXPOSED, self._read())
        except OSError as error:
            self._report(REFUSED, f"{self._place}: {error.strerror}; {KEPT}")
        except InvalidConfiguration as error:
            self._report(REFUSED, f"{' | '.join(error.problems)}; {KEPT}")
        return self._secrets

    def _read(self) -> str:
        """Reads the secrets of the file; returns what is wrong with its mode, or an empty text."""
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                content = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise InvalidConfiguration([f"{self._place}: {error.strerror}; let this user read it"]) from None
        # Set before the content is checked, so that a wrong version is checked only once.
        self._stamp = _stamp(facts)
        self._fresh = time.time_ns() - facts.st_mtime_ns < FRESH_NS
        self._secrets = parsed(content, place=self._place)
        if not facts.st_mode & stat.S_IROTH:
            return ""
        mode = f"{stat.S_IMODE(facts.st_mode):04o}"
        return f"{self._place}: everybody on this machine may read it (mode {mode}); make it 0600"

    def _report(self, event: str, problem: str) -> None:
        """Logs a problem unless it is the same as last time."""
        if problem and problem != self._reported:
            level = logging.ERROR if event == REFUSED else logging.WARNING
            log.log(level, "%s", problem, extra={EVENT: event, "file": str(self._path)})
        self._reported = problem


def file_errors(path: Path, *, field: str) -> list[FieldError]:
    """Returns what SecretFile would refuse in a file. A missing file is an error of this machine only: another may have it."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        return [FieldError(field, f"{error.strerror}", "let this user read a file there", here=True)]
    except ValueError:
        return [FieldError(field, "is no path", "write the path of a file")]
    return [FieldError(field, wrong, remedy) for wrong, remedy in _read(content)[1]]


def parsed(content: bytes, *, place: str) -> Mapping[str, str]:
    """Returns secrets by name; raises InvalidConfiguration that says where something is wrong, without the text itself."""
    secrets, wrong = _read(content)
    if wrong:
        raise InvalidConfiguration([f"{place}: {what}; {remedy}" for what, remedy in wrong])
    return secrets


def _read(content: bytes) -> tuple[Mapping[str, str], list[Wrong]]:
    if len(content) > FILE_BYTES_MAX:
        return {}, [(f"larger than {FILE_BYTES_MAX} bytes", "is it the right file?")]
    try:
        entries = parse_entries(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return {}, [("not UTF-8", "save the file as UTF-8")]
    except InvalidConfiguration as error:
        found = _WHERE.search(error.problems[0])
        where = f"{found[0]}: " if found else ""
        return {}, [(f"{where}not lines of `name: secret`", "write them so")]
    if not entries:
        return {}, [("holds no entry", "write `name: secret`, or remove the setting")]
    if len(entries) > ENTRIES_MAX:
        return {}, [(f"more than {ENTRIES_MAX} entries", "remove some")]
    wrong = [(f"line {each.line}: {what}", remedy) for each in entries for what, remedy in _of_entry(each)]
    return {str(each.name): str(each.value) for each in entries}, [*wrong, *_twice(entries)][:WRONG_MAX]


def _of_entry(entry: DocumentLine) -> list[Wrong]:
    name = entry.name
    # A wrong name is not shown: it may be a secret on the wrong side of the colon.
    if not isinstance(name, str):
        return [("the name is read as a number or the like, not as a text", "put it in quotes")]
    if not _NAME.fullmatch(name):
        wrong = f"the name is no word of at most {NAME_CHARS_MAX} letters, digits and -_.@:+=,/"
        return [(wrong, "write `name: secret`")]
    return _of_secret(name, entry.value)


def _twice(entries: list[DocumentLine]) -> list[Wrong]:
    seen: dict[object, int] = {}
    return [
        (f"line {each.line}: {each.name} is there twice, first on line {seen[each.name]}", "remove one")
        for each in entries
        if seen.setdefault(each.name, each.line) != each.line
    ]


def _of_secret(name: str, value: object) -> list[Wrong]:
    if value is None:
        return [(f"{name}: has no secret", "write one behind the colon")]
    if not isinstance(value, str):
        what = {bool: "true or false", int: "a number", float: "a number"}.get(type(value), "several values")
        remedy = "write one text" if what == "several values" else "put it in quotes"
        return [(f"{name}: the secret is read as {what}, not as a text", remedy)]
    if not _SECRET.fullmatch(value):
        wrong = f"{name}: the secret is empty, too long or has spaces"
        return [(wrong, f"write 1 to {SECRET_CHARS_MAX} ASCII characters without spaces")]
    return []


def _stamp(facts: os.stat_result) -> _Stamp:
    return _Stamp(facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
