"""Owns the names of the daemon's own packages, `adapters` and `poller`, which packages of a function may have, too.

A process has one package of a name. In the daemon's process that is the daemon's own, which hides a function's package of the
same name. Then the function is refused, since it would import the wrong one, or find nothing.

In a child process the function's package wins. First the child imports all that it needs of the daemon's packages, from where the
daemon has them. Then these give way: they stay in use, but their names become free, and an import of such a name looks into the
folder of the start. So modules that the child uses import nothing of the daemon's later on, inside of functions.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from adapters.invokers.handlers.child_program import OWN
from adapters.invokers.handlers.imported_names import ImportedName, file_of, imported_names
from poller.start_folder import start_folder

REMEDY = "write isolation: process, rename the package, or let the invoker http or process call the function"
_ROOT = Path(__file__).parents[3]


class FromStartFolder:
    """A finder of imports: takes packages of these names from the folder of the start, and leaves all others to Python."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns where the package is; None if another finder is to look for it."""
        return _spec(name) if path is None and name in self._names else None


def hidden_packages() -> Mapping[str, Path]:
    """Returns the packages, folders and modules in the folder of the start that are called as the daemon's own, by name."""
    found = {name: place for name in OWN if (place := _place(_spec(name)))}
    return {name: place for name, place in found.items() if place.resolve() != (_ROOT / name).resolve()}


def hidden_import(module: str) -> str:
    """Says which import of a function's modules the daemon's own packages hide; empty if none is known."""
    hidden = hidden_packages()
    if not hidden:
        return ""
    found = next((each for each in imported_names(module) if _is_hidden(each.name, hidden)), None)
    return _told(found, hidden) if found else ""


def hidden_at_import(error: BaseException) -> str:
    """Says of an import that failed that the daemon's own packages hide what it looked for; empty if they do not."""
    hidden = hidden_packages()
    if not isinstance(error, ImportError) or not isinstance(error.name, str) or not hidden:
        return ""
    # `from a import b` fails with the name a, and b beside it.
    beside = f"{error.name}.{error.name_from}"
    found = next((name for name in (error.name, beside) if _is_hidden(name, hidden)), None)
    ours = found and sys.modules.get(found.partition(".")[0])
    return f"{_told(ImportedName(found, ''), hidden)}; {REMEDY}" if found and _is_own(ours) else ""


def give_way(module: str) -> None:
    """Frees the names of the daemon's own packages which a function has itself, so that its packages are imported from now on.

    A mere folder counts if the source of `module`, or what it imports, shows an import from it.
    """
    hidden = hidden_packages()
    if not hidden:
        return
    names = {name for name, place in hidden.items() if _has_code_of_its_own(name, place)}
    names |= {each.name.partition(".")[0] for each in imported_names(module) if _is_hidden(each.name, hidden)}
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
    sys.meta_path.insert(0, FromStartFolder(frozenset(names)))


def _spec(name: str) -> ModuleSpec | None:
    return PathFinder.find_spec(name, [str(start_folder())])


def _place(spec: ModuleSpec | None) -> Path | None:
    if spec is None:
        return None
    folder = next(iter(spec.submodule_search_locations or ()), None)
    place = folder or spec.origin
    return Path(place) if place else None


def _has_code_of_its_own(name: str, place: Path) -> bool:
    """Whether it is a module or a package with an `__init__`, and no mere folder."""
    return not place.is_dir() or file_of(name) is not None


def _is_hidden(name: str, hidden: Mapping[str, Path]) -> bool:
    """Whether the folder of the start has the module `name`, in a package that the daemon's own hides."""
    top = name.partition(".")[0]
    return top in hidden and (file_of(name) is not None or not hidden[top].is_dir())


def _is_own(module: object) -> bool:
    return Path(getattr(module, "__file__", None) or "").parent.parent == _ROOT


def _told(found: ImportedName, hidden: Mapping[str, Path]) -> str:
    top = found.name.partition(".")[0]
    by = f"{found.by} imports {found.name!r}, but " if found.by else ""
    return f"{by}the daemon itself has a package {top!r}, which hides {hidden[top]}"
