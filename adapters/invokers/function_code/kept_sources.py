"""Owns the sources of one version of a function's code, as they were read when its modules were imported.

The file of a module may change while its old code still runs. So its source is kept: tracebacks show the lines that run, processes
that start later run the same version, and a change is a difference between what was read and what the file holds now.

Compiled files beside a module are not used. Python takes such a file as valid if the source has its size and its time in whole
seconds, which is also so after a quick change of one character.
"""

import linecache
import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

MODULES_MAX = 500
"""Modules of one function whose changes are seen."""
KEPT_BYTES_MAX = 3 * 1024 * 1024
"""Bytes of their sources that are kept together, which one request of a child process can carry. What does not fit is not kept."""
RECORDS_MAX = 1000
"""Installed distributions that are looked for in the folder of a function."""
_LIBRARY_FOLDERS = frozenset({"site-packages", "dist-packages"})


class KeptSources:
    """The sources by path. Those that are `given` are used in place of the files."""

    def __init__(self, given: Mapping[str, bytes] | None = None) -> None:
        self.given = dict(given or {})
        self.read: dict[str, bytes] = {}
        self._bytes = 0
        self._shown: dict[str, Any] | None = None

    def source(self, path: str) -> bytes:
        """Returns the source of a module that is imported now, and keeps it. Raises OSError."""
        found = self.given.get(path)
        if found is None:
            found = Path(path).read_bytes()
        fits = len(self.read) < MODULES_MAX and self._bytes + len(found) <= KEPT_BYTES_MAX
        if path not in self.read and fits:
            self._bytes += len(found)
            self.read[path] = found
            if self._shown is not None:
                self._show(path)
        return found

    def line(self, path: str, number: int) -> str:
        """Returns a line of a kept source; empty if there is none."""
        lines = _lines(self.read.get(path, b""))
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def show_lines(self) -> None:
        """Makes Python's own tracebacks show lines of these sources, whatever the files hold meanwhile."""
        self._shown = {}
        for path in self.read:
            self._show(path)

    def hide_lines(self) -> None:
        """Ends that, as far as no other version shows its lines by now."""
        for path, entry in (self._shown or {}).items():
            if linecache.cache.get(path) is entry:
                del linecache.cache[path]
        self._shown = None

    def _show(self, path: str) -> None:
        assert self._shown is not None
        source = self.read[path]
        # Without a time the entry is not compared with the file.
        entry = (len(source), None, [f"{line}\n" for line in _lines(source)], path)
        self._shown[path] = linecache.cache[path] = entry


def _lines(source: bytes) -> list[str]:
    return source.decode(errors="replace").splitlines()


class SourceLoader(SourceFileLoader):
    """Loads a module of a function's own from its source, which it keeps."""

    def __init__(
        self,
        name: str,
        path: str,
        sources: KeptSources,
        before: Callable[[ModuleType], None] | None = None,
    ) -> None:
        super().__init__(name, path)
        self._sources = sources
        self._before = before

    def get_data(self, path: str) -> bytes:
        """Returns the source of the module, or what any other file holds."""
        return self._sources.source(path) if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        """Compiles the module's source."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module."""
        if self._before is not None:
            self._before(module)
        super().exec_module(module)

    def kept_line(self, number: int) -> str:
        """Returns a line of the source that runs."""
        return self._sources.line(self.path, number)


class OwnModules:
    """A finder of imports for a process that runs one function only: keeps the sources of its own modules.

    They lie in `folder` and were not installed there.
    """

    def __init__(self, folder: str, sources: KeptSources) -> None:
        self.folder = folder
        self._sources = sources
        self._installed = installed_names(folder)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns where a module of the function's own is; None if another finder is to look for it."""
        places = None if path is None else list(path)
        if places is not None and not any(within(place, self.folder) for place in places):
            return None
        spec = given_spec(name, [self.folder] if places is None else places, self._sources)
        if spec is None:
            spec = PathFinder.find_spec(name, places)
        if spec is None or not own_source(spec, self.folder, self._installed):
            return None
        assert spec.origin is not None
        spec.loader = SourceLoader(name, spec.origin, self._sources)
        return spec


def given_spec(name: str, places: list[str], sources: KeptSources) -> ModuleSpec | None:
    """Returns where a module is by the sources that were given, whether its file is still there or not."""
    for place in places:
        base = os.path.join(place, name.rpartition(".")[2])
        for path, folder in ((os.path.join(base, "__init__.py"), base), (f"{base}.py", "")):
            if path in sources.given:
                spec = ModuleSpec(name, SourceFileLoader(name, path), origin=path, is_package=bool(folder))
                spec.has_location = True
                if folder:
                    spec.submodule_search_locations = [folder]
                return spec
    return None


def own_source(spec: ModuleSpec, folder: str, installed: frozenset[str]) -> bool:
    """Whether a module is a source file in the function's folder that was not installed there."""
    if (
        not isinstance(spec.loader, SourceFileLoader)
        or spec.origin is None
        or not within(spec.origin, folder)
    ):
        return False
    parts = os.path.relpath(spec.origin, folder).split(os.sep)
    return parts[0].removesuffix(".py") not in installed and _LIBRARY_FOLDERS.isdisjoint(parts)


def is_own(top: str, folder: str, installed: frozenset[str]) -> bool:
    """Whether a module or package at the top of a name is the function's own, as it is imported apart in the daemon's process."""
    spec = PathFinder.find_spec(top, [folder])
    if spec is None or top in sys.stdlib_module_names:
        return False
    if spec.loader is not None and spec.origin is not None:
        return own_source(spec, folder, installed)
    # A mere folder counts only where no package has its name, as in any import.
    elsewhere = PathFinder.find_spec(top)
    return top not in installed and (elsewhere is None or elsewhere.origin is None)


def within(path: str, folder: str) -> bool:
    """Whether a path is the folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def installed_names(folder: str) -> frozenset[str]:
    """Returns the packages and modules that an installer put into a folder, as `pip install --target` does. They are libraries."""
    found = set[str]()
    for record in sorted(Path(folder).glob("*.dist-info/RECORD"))[:RECORDS_MAX]:
        try:
            lines = record.read_text(errors="replace").splitlines()
        except OSError:
            continue
        found |= {line.partition(",")[0].partition("/")[0].removesuffix(".py") for line in lines}
    return frozenset(found)
