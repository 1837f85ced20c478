"""Owns the code that the processes of one function share: what the first one has imported, the others import as well.

So they run the same version, also when files have changed or are gone since.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping

from adapters.invokers.function_code.kept_sources import MODULES_MAX
from adapters.invokers.outcomes import json_object

CODE_PATH = "code"
"""The path of the Runtime API's extension at which processes get and report it."""


class SharedCode:
    """The sources of a function's own modules, by path. The first report of a file counts."""

    def __init__(self) -> None:
        self.sources: dict[str, bytes] = {}

    def document(self) -> bytes:
        """Returns what a process is to import."""
        return encoded(self.sources)

    def add(self, document: bytes) -> None:
        """Takes what a process has imported."""
        for path, source in decoded(document).items():
            if len(self.sources) < MODULES_MAX:
                self.sources.setdefault(path, source)


def encoded(sources: Mapping[str, bytes]) -> bytes:
    """Returns sources as one document."""
    return json.dumps({path: b64encode(source).decode() for path, source in sources.items()}).encode()


def decoded(document: bytes) -> dict[str, bytes]:
    """Returns the sources of a document. What has another form is left out."""
    found: dict[str, bytes] = {}
    for path, source in list(json_object(document).items())[:MODULES_MAX]:
        try:
            found[path] = b64decode(source, validate=True)
        except (TypeError, ValueError):
            continue
    return found
