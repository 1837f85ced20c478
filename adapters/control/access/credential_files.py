"""Owns the files that hold secrets. Each is read when it is opened, and again whenever it changes.

Errors and the log name the entries of a file, but never show any other text of it.
"""

import logging
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.changing_files import Stamp, content_of, remedy_of
from adapters.control.access.credential_entries import FILE_BYTES_MAX, Read
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.output.log_fields import EVENT

REFUSED = "secret_file_refused"
EXPOSED = "file_exposed"
"""Events of the log."""
KEPT = "what it held before stays in force"

log = logging.getLogger("poller.control")


class SecretFile[Entry]:
    """A YAML file of secrets by name. `field` is the setting that names it, `read` what its entries are read by."""

    def __init__(self, path: Path, read: Read[Entry], *, field: str) -> None:
        """Reads the file; raises InvalidConfiguration with the remedy."""
        self._path = path
        self._read_entries = read
        self._place = f"api.{field}: {path}"
        self._stamp: Stamp | None = None
        self._fresh = False
        self._reported = ""
        self._entries: Mapping[str, Entry] = {}
        self._report(EXPOSED, self._read())

    def entries(self) -> Mapping[str, Entry]:
        """Returns the entries by name, as the file has them now, or as it had them last if it cannot be read now."""
        try:
            if self._fresh or self._stamp != Stamp.of(self._path.stat()):
                self._report(EXPOSED, self._read())
        except OSError as error:
            self._report(REFUSED, f"{self._place}: {error.strerror}; {KEPT}")
        except InvalidConfiguration as error:
            self._report(REFUSED, f"{' | '.join(error.problems)}; {KEPT}")
        return self._entries

    def _read(self) -> str:
        """Reads the entries of the file; returns what is wrong with its mode, or an empty text."""
        try:
            content, facts = content_of(self._path, bytes_max=FILE_BYTES_MAX)
        except OSError as error:
            raise InvalidConfiguration([f"{self._place}: {error.strerror}; {remedy_of(error)}"]) from None
        # Set before the content is checked, so that a wrong version is checked only once.
        self._stamp = Stamp.of(facts)
        self._fresh = self._stamp.is_fresh()
        self._entries = parsed(content, self._read_entries, place=self._place)
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


def file_errors(path: Path, read: Read[Any], *, field: str) -> list[FieldError]:
    """Returns what SecretFile would refuse in a file. A missing file is an error of this machine only: another may have it."""
    try:
        content, _ = content_of(path, bytes_max=FILE_BYTES_MAX)
    except OSError as error:
        return [FieldError(field, f"{error.strerror}", remedy_of(error), here=True)]
    except ValueError:
        return [FieldError(field, "is no path", "write the path of a file")]
    return [FieldError(field, wrong, remedy) for wrong, remedy in read(content)[1]]


def parsed[Entry](content: bytes, read: Read[Entry], *, place: str) -> Mapping[str, Entry]:
    """Returns entries by name; raises InvalidConfiguration that says where something is wrong, without the text itself."""
    entries, wrong = read(content)
    if wrong:
        raise InvalidConfiguration([f"{place}: {what}; {remedy}" for what, remedy in wrong])
    return entries
