"""Owns imports of a function's own modules under names of their own, so that one process can have several versions of them.

The modules of one version are submodules of a root that has no file, such as `orders@2`: `shop.handlers` is imported as
`orders@2.shop.handlers`. So Python's import system does all the work, with its locks, packages and relative imports.

`import helper` in such a module must mean `orders@2.helper`, also in a thread, a task or a callback, and also years after the import.
So it is decided by where the statement stands: Python takes `__import__` from the builtins of the module in which the statement
stands, and these modules have builtins of their own. For `importlib.import_module` the nearest caller among these modules decides.

Only what lies in the folder of the function is imported in this way, without packages that were installed there.
"""

import builtins
import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from itertools import count
from types import FrameType, ModuleType
from typing import Any

from adapters.invokers.function_code.kept_sources import (
    KeptSources,
    SourceLoader,
    installed_names,
    is_own,
    own_source,
)

FRAMES_MAX = 100
"""Callers among which the nearest module of a version is looked for."""
_ROOT = re.compile(r"^[^.@]+@[0-9]+\.")
_MARK = "__private_imports__"
_import = builtins.__import__
_import_module = importlib.import_module
_numbers = count(1)
_open: dict[str, "PrivateImports"] = {}
"""The versions whose modules are imported, by the names of their roots."""


class PrivateImports:
    """The modules of one version of a function's code, in `folder`. `close` must be called at the end."""

    def __init__(self, function: str, folder: str) -> None:
        self.root = f"{function.replace('.', '_')}@{next(_numbers)}"
        self.sources = KeptSources()
        self.folder = folder
        self._installed = installed_names(folder)
        self._builtins = {**vars(builtins), "__import__": self._import, _MARK: self}
        self._owned: dict[str, bool] = {}
        self._closed: Mapping[str, ModuleType] | None = None
        if self._installed and folder not in sys.path:
            # Behind all others, so that nothing is found there that was found elsewhere before.
            sys.path.append(folder)
        root = ModuleType(self.root, "The modules of one version of a function's code.")
        root.__path__ = [folder]
        root.__spec__ = ModuleSpec(self.root, None, is_package=True)
        if not _open:
            sys.meta_path.insert(0, _finder)
            importlib.import_module = _redirecting
        _open[self.root] = self
        importlib.invalidate_caches()
        sys.modules[self.root] = root

    @property
    def closed(self) -> bool:
        """Whether the modules were let go of."""
        return self._closed is not None

    def name(self, module: str) -> str:
        """Returns the name under which a module is imported: its own name if it is none of the function's."""
        return f"{self.root}.{module}" if self.owns(module) else module

    def plain(self, text: str) -> str:
        """Returns a text without the name of the root."""
        return text.replace(f"{self.root}.", "")

    def owns(self, module: str) -> bool:
        """Whether a module, or the package at the top of its name, is one of the function's own."""
        top = module.partition(".")[0]
        found = self._owned.get(top)
        if found is None:
            found = self._owned[top] = is_own(top, self.folder, self._installed)
        return found

    def import_plain(self, name: str) -> ModuleType:
        """Imports a module by the name that the function has for it."""
        return self.import_module(self.name(name))

    def find(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Returns where a module below the root is."""
        spec = PathFinder.find_spec(name, path)
        if spec is not None and own_source(spec, self.folder, frozenset()):
            assert spec.origin is not None
            spec.loader = SourceLoader(name, spec.origin, self.sources, self._give_builtins)
        return spec

    def import_module(self, name: str) -> ModuleType:
        """Imports a module by its full name below the root; after the end only finds those that were imported."""
        if self._closed is None:
            return _import_module(name)
        if name not in self._closed:
            plain = self.plain(name)
            raise ModuleNotFoundError(f"No module named {plain!r}", name=plain)
        return self._closed[name]

    def close(self) -> None:
        """Lets go of the modules, so that they are freed when none of their code runs. What still runs can import them as before."""
        if self._closed is not None:
            return
        self._closed = {name: each for name, each in list(sys.modules.items()) if self._below(name)}
        for name in self._closed:
            del sys.modules[name]
        sys.modules.pop(self.root, None)
        del _open[self.root]
        if not _open:
            sys.meta_path.remove(_finder)
            if importlib.import_module is _redirecting:
                importlib.import_module = _import_module
        _forget_loggers(self._below)
        self.sources.hide_lines()

    def _below(self, name: str) -> bool:
        return name.startswith(f"{self.root}.")

    def _give_builtins(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._builtins

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__` of these modules."""
        fromlist = fromlist or ()
        if level:
            package = str((globals or {}).get("__package__") or "")
            if package.startswith(self.root):
                _check_relative(package, level)
                if self._closed is not None:
                    return self.import_module(importlib.util.resolve_name("." * level + name, package))
        elif self.owns(name):
            if self._closed is None and fromlist:
                return _import(self.name(name), globals, locals, fromlist, 0)
            leaf = self.import_module(self.name(name))
            return leaf if fromlist else self.import_module(self.name(name.partition(".")[0]))
        return _import(name, globals, locals, fromlist, level)


class _Finder:
    """Finds modules below the roots of all versions."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        imports = _open.get(name.partition(".")[0])
        return None if imports is None or path is None else imports.find(name, path)


_finder: Any = _Finder()


def _redirecting(name: str, package: str | None = None) -> ModuleType:
    """`importlib.import_module` as long as there are versions of code: modules of theirs find their own."""
    owner = None if name.startswith(".") else _nearest(sys._getframe(1))
    if owner is not None and owner.owns(name):
        return owner.import_module(owner.name(name))
    return _import_module(name, package)


def _nearest(frame: FrameType | None) -> PrivateImports | None:
    for _ in range(FRAMES_MAX):
        if frame is None:
            return None
        found = frame.f_builtins.get(_MARK)
        if isinstance(found, PrivateImports):
            return found
        frame = frame.f_back
    return None


def plain_name(module: str) -> str:
    """Returns the name that a function has for its module, whatever the module is called in this process."""
    return _ROOT.sub("", module, count=1) if "@" in module else module


def _check_relative(package: str, level: int) -> None:
    """Raises ImportError for an import that would leave the topmost package, as an import of plain modules does."""
    above = package.count(".")
    if above == 0:
        raise ImportError("attempted relative import with no known parent package")
    if level > above:
        raise ImportError("attempted relative import beyond top-level package")


def _forget_loggers(below: Callable[[str], bool]) -> None:
    """Removes the loggers that are called as these modules. Python keeps loggers for ever."""
    known = logging.root.manager.loggerDict
    for name in [name for name in list(known) if below(name) or below(f"{name}.")]:
        del known[name]
