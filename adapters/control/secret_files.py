"""Owns the files that hold secrets: how they are read, and that they are read again when they change.

No text of a file ever gets into an error or the log, but the names of its entries.
"""

import logging
import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from poller.errors import InvalidConfiguration
from poller.files import parse_document

FILE_BYTES_MAX = 1024 * 1024
ENTRIES_MAX = 1000
NAME_CHARS_MAX = 128
SECRET_CHARS_MAX = 1024
FRESH_NS = 2_000_000_000
"""A file changed so shortly before it was read may change once more without a new time; it is read again."""

KEPT = "what it held before stays in force"

log = logging.getLogger("poller.control")

_WHERE = re.compile(r"line \d+, column \d+")
_NAME = re.compile(rf"[\w.@:+=,/-]{{1,{NAME_CHARS_MAX}}}", re.ASCII)
_SECRET = re.compile(rf"[!-~]{{1,{SECRET_CHARS_MAX}}}")


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells one version of a file from another; links are followed, so a swapped one is another file."""

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
        self._told = ""
        self._secrets: Mapping[str, str] = {}
        self._tell(logging.WARNING, self._read())

    def secrets(self) -> Mapping[str, str]:
        """Secrets by name, as the file has them now; what it had before if it is not readable now."""
        try:
            if self._fresh or self._stamp != _stamp(self._path.stat()):
                self._tell(logging.WARNING, self._read())
        except OSError as error:
            self._tell(logging.ERROR, f"{self._place}: {error.strerror}; {KEPT}")
        except InvalidConfiguration as error:
            self._tell(logging.ERROR, f"{error.problems[0]}; {KEPT}")
        return self._secrets

    def _read(self) -> str:
        """Takes over what the file holds; returns what is wrong with its mode."""
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                content = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise InvalidConfiguration([f"{self._place}: {error.strerror}; let this user read it"]) from None
        # Noted before the content is judged, so that a bad version is judged once.
        self._stamp = _stamp(facts)
        self._fresh = time.time_ns() - facts.st_mtime_ns < FRESH_NS
        self._secrets = parsed(content, place=self._place)
        if not facts.st_mode & stat.S_IROTH:
            return ""
        mode = f"{stat.S_IMODE(facts.st_mode):04o}"
        return f"{self._place}: everybody on this machine may read it (mode {mode}); make it 0600"

    def _tell(self, level: int, problem: str) -> None:
        """Logs a problem when it is a new one."""
        if problem and problem != self._told:
            log.log(level, "%s", problem)
        self._told = problem


def parsed(content: bytes, *, place: str) -> Mapping[str, str]:
    """Secrets by name; raises InvalidConfiguration that says where something is wrong, and nothing of what is there."""
    if len(content) > FILE_BYTES_MAX:
        raise InvalidConfiguration([f"{place}: larger than {FILE_BYTES_MAX} bytes; is it the right file?"])
    try:
        document = parse_document(content.decode("utf-8-sig"), name="")
    except UnicodeDecodeError:
        raise InvalidConfiguration([f"{place}: not UTF-8; save the file as UTF-8"]) from None
    except InvalidConfiguration as error:
        found = _WHERE.search(error.problems[0])
        where = f"{found[0]}: " if found else ""
        raise InvalidConfiguration([f"{place}: {where}not lines of `name: secret`; write them so"]) from None
    if len(document) > ENTRIES_MAX:
        raise InvalidConfiguration([f"{place}: more than {ENTRIES_MAX} entries; remove some"])
    return {_name(name, place): _secret(name, value, place) for name, value in document.items()}


def _name(name: str, place: str) -> str:
    if not _NAME.fullmatch(name):
        # A wrong name may be a secret that stands on the wrong side of the colon.
        text = f"a name is no word of at most {NAME_CHARS_MAX} letters, digits and -_.; write `name: secret`"
        raise InvalidConfiguration([f"{place}: {text}"])
    return name


def _secret(name: str, value: object, place: str) -> str:
    if not isinstance(value, str):
        raise InvalidConfiguration([f"{place}: {name}: the secret is no text; put it in quotes"])
    if not _SECRET.fullmatch(value):
        text = f"the secret is empty, too long or has spaces; write 1 to {SECRET_CHARS_MAX} ASCII characters"
        raise InvalidConfiguration([f"{place}: {name}: {text}"])
    return value


def _stamp(facts: os.stat_result) -> _Stamp:
    return _Stamp(facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
