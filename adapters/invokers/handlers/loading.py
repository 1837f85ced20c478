"""Owns how a handler is loaded: its module is imported and its attribute looked up; errors come with a remedy.

An import runs a user's code, which may take long or never end. So it is done in a thread, and the loop goes on.
"""

import asyncio
import importlib
import logging
import sys
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from adapters.invokers.function_code.private_imports import PrivateImports
from adapters.invokers.handlers.calling import Handler, name_of, text_of
from adapters.invokers.handlers.output import attributed_to
from adapters.invokers.handlers.own_packages import hidden_at_import
from adapters.invokers.handlers.source import handler_name
from adapters.invokers.stack_traces import stack_of
from poller.domain.errors import InvalidConfiguration
from poller.domain.untrusted.texts import line_of
from poller.forked_copies import ends_copies
from poller.plugins import Environment
from poller.start_folder import keep_import_path, start_folder

IMPORT_S_MAX = 25.0
"""How long the import of a handler's module may take. The daemon waits longer for the opening of a function."""
PROBLEM_CHARS_MAX = 500
_LIBRARIES = ('File "<', *(f'File "{sysconfig.get_path(name)}' for name in ("stdlib", "purelib", "platlib")))
_MAIN_THREAD = "main thread"
"""A part of Python's error texts for things that only the main thread can do, such as setting signal handlers."""


def load_handler(
    function: str, handler: str, *, folder: str | None = None, imports: PrivateImports | None = None
) -> Handler:
    """Imports and returns the callable that a handler names; raises InvalidConfiguration that says what to correct.

    Modules of `folder` can be imported, as with `python -m`; None: it is the folder of the start. With `imports` they are imported by
    these, and are found nowhere else.
    """
    folder = folder or str(start_folder())
    try:
        module_name, _, path = handler_name(handler).partition(":")
    except ValueError as error:
        raise wrong(function, handler, str(error)) from error
    keep_import_path()
    if imports is None and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with ends_copies():
            module = _module(function, handler, module_name, folder, imports)
            found = _attribute(module, function, handler, path)
        kind = None if callable(found) else type(found).__name__
    except InvalidConfiguration:
        raise
    except BaseException as error:  # user code: a module's attributes may raise anything
        what = f"looking up {path} raised {_error_text(error)}; mend the module"
        raise wrong(function, handler, what) from error
    if kind is not None:
        raise wrong(function, handler, f"{path} is a {kind}; name a function instead")
    return found  # type: ignore[no-any-return]  # what a user's module holds has no type


def wrong(function: str, handler: str, what: str) -> InvalidConfiguration:
    """Makes the error for a function's handler."""
    return InvalidConfiguration([f"functions.{function}.handler: {handler!r}: {what}"])


def too_slow(function: str, handler: str, for_s: float) -> InvalidConfiguration:
    """Makes the error for an import that has not ended in time."""
    module = handler.partition(":")[0]
    what = f"importing {module} took longer than {for_s:g} s; let the module load less, or load it at the first call"
    return wrong(function, handler, what)


class PendingImports:
    """The imports of one daemon that have not ended, so that a module that hangs takes only one thread."""

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[Any]] = {}

    async def load(
        self,
        function: str,
        handler: str,
        run: Callable[[Callable[[], Handler]], asyncio.Future[Handler]],
        *,
        limit_s: float,
    ) -> Handler:
        """Loads the handler in a thread, which `run` starts; raises InvalidConfiguration, also if it takes too long."""
        module = handler.partition(":")[0]
        if imported(module):
            return _load(function, handler)
        before = self._pending.get(module)
        if before is not None and not before.done():
            await asyncio.wait((before,), timeout=limit_s)
            if not before.done():
                raise too_slow(function, handler, limit_s)
        loading = run(lambda: _load(function, handler))
        self._pending[module] = loading
        loading.add_done_callback(lambda done: self._ended(module, done))
        await asyncio.wait((loading,), timeout=limit_s)
        if not loading.done():
            raise too_slow(function, handler, limit_s)
        return loading.result()

    def _ended(self, module: str, loading: asyncio.Future[Any]) -> None:
        if self._pending.get(module) is loading:
            del self._pending[module]
        # Reads the exception, so that asyncio does not log it as never retrieved.
        _ = loading.cancelled() or loading.exception()


@asynccontextmanager
async def _pending_imports() -> AsyncIterator[PendingImports]:
    yield PendingImports()


async def pending_imports(env: Environment) -> PendingImports:
    """Returns the pending imports of this daemon."""
    return await env.shared.get("python imports", _pending_imports)


def _load(function: str, handler: str) -> Handler:
    with attributed_to(function):
        return load_handler(function, handler)


def load_apart(function: str, handler: str, imports: PrivateImports) -> Handler:
    """As `load_handler`, with output that belongs to the function. Its errors name modules as the function does."""
    try:
        with attributed_to(function):
            return load_handler(function, handler, folder=imports.folder, imports=imports)
    except InvalidConfiguration as error:
        raise InvalidConfiguration([imports.plain(each) for each in error.problems]) from error


def imported(module: str) -> bool:
    """Whether a module is fully imported, so that an import runs nothing of it."""
    found = sys.modules.get(module)
    spec = getattr(found, "__spec__", None)
    return found is not None and not getattr(spec, "_initializing", False)


def _module(
    function: str, handler: str, name: str, folder: str, imports: PrivateImports | None
) -> ModuleType:
    try:
        with ends_copies():
            return importlib.import_module(name) if imports is None else imports.import_plain(name)
    except ModuleNotFoundError as error:
        remedy = f"no module {error.name!r}; install it or start the daemon where it lies ({folder})"
        raise wrong(function, handler, (not imports and hidden_at_import(error)) or remedy) from error
    except BaseException as error:
        # User code: importing a module runs it, and it may raise anything.
        what = f"importing {name} raised {_error_text(error)}{_place(error)}; {_remedy(error)}"
        raise wrong(function, handler, (not imports and hidden_at_import(error)) or what) from error


def _remedy(error: BaseException) -> str:
    if _MAIN_THREAD in text_of(error):
        return (
            "modules are imported in a thread: let the module do this when it runs as a program only, "
            "or set isolation: process, which imports it in the main thread of a process of its own"
        )
    return "mend the module"


def _error_text(error: BaseException) -> str:
    return line_of(f"{name_of(error)}: {text_of(error)}", chars_max=PROBLEM_CHARS_MAX)


def _place(error: BaseException) -> str:
    """Returns the line of a user's module in which it was raised. Writes the whole stack to the function's log."""
    stack = stack_of(error)
    if not stack:
        return ""
    logging.getLogger(__name__).error("The import failed.\n%s\n%s", "\n".join(stack), _error_text(error))
    places = [entry.strip().splitlines()[0] for entry in stack]
    # The exception may come from deep inside a library. The line of the user that called it must be corrected.
    of_user = [place for place in places if not any(library in place for library in _LIBRARIES)]
    return f" ({(of_user or places)[-1]})"


def _attribute(found: Any, function: str, handler: str, path: str) -> Any:
    for name in path.split("."):
        if not hasattr(found, name):
            where = getattr(found, "__name__", type(found).__name__)
            raise wrong(function, handler, f"{where} has no attribute {name!r}; name one that exists")
        found = getattr(found, name)
    return found
