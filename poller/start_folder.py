"""Owns the folder in which the process was started: what relative paths of settings, and of Python's import path, are relative to.

A function that runs in the daemon's process may change the current directory (`os.chdir("/tmp")` is usual on Lambda), and may even
remove it. So the current directory is read once, when this module is imported. The rest of the daemon asks here.
Relative paths of libraries, in the import path and in variables, are made absolute when the command line begins.
"""

import os
import sys
from pathlib import Path

VARIABLES = (
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)
"""Variables that name a file or a directory which libraries read again while the daemon runs."""


def _current() -> Path | None:
    """The current directory; None if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


_STARTED_IN = _current() or Path(os.environ.get("PWD") or os.sep)


def start_folder() -> Path:
    """The folder of the start, an absolute path."""
    return _STARTED_IN


def from_start_folder(path: Path | str) -> Path:
    """The absolute path that `path` means, which is relative to the folder of the start. Links are not followed."""
    return _STARTED_IN / path


def folder_of_processes() -> Path | None:
    """The `cwd` of a process that is to be started in the folder of the start; None if it is the current directory anyway.

    A user who has been given that directory may stay there, but not always enter it again.
    """
    return None if _current() == _STARTED_IN else _STARTED_IN


def import_path() -> list[str]:
    """Python's import path, in which relative entries, such as the empty one, are made absolute.

    An entry that names nothing stays as it is. Some installers put such names there for hooks of their own.
    """
    return [_absolute(each) for each in sys.path]


def keep_import_path() -> None:
    """Makes relative entries of Python's import path absolute, so that later imports find the same modules."""
    sys.path[:] = import_path()


def keep_variables() -> None:
    """Makes the relative paths in VARIABLES absolute. A path that begins with a tilde is one of a home directory."""
    for name in VARIABLES:
        value = os.environ.get(name)
        if value and not value.startswith("~"):
            os.environ[name] = str(from_start_folder(value))


def _absolute(entry: str) -> str:
    place = from_start_folder(entry)
    return str(place) if not os.path.isabs(entry) and place.exists() else entry
