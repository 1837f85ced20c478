"""Owns how a function of a template is called here: its invoker and that one's settings, with comments for what people must do."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from poller.config.field_types import COUNT_MAX, SECONDS_MAX
from poller.config.starting.draft import FunctionDraft
from poller.domain.untrusted.numbers import whole
from poller.rules.templates.found import ELSEWHERE, FoundFunction
from poller.rules.templates.values import Unresolved

_NAMES_MAX = 20
NUMBER_MAX = 10**9
"""Larger numbers of a template are not read as numbers."""
ON_LAMBDA = "it goes on running on AWS Lambda, and is called there"


def function_draft(function: FoundFunction, folder: str) -> FunctionDraft:
    """The entry of a function. `folder` is that of the template, as it was given: code in it is named relative to it."""
    place = _folder(function.code, folder)
    handler = function.handler if isinstance(function.handler, str) else ""
    runtime = function.runtime if isinstance(function.runtime, str) else ""
    comments = [*_comments(function, runtime)]
    settings: dict[str, Any] = {}
    match runtime:
        case _ if function.image or not runtime:
            settings = {"invoker": "lambda"}
            what = "a container image" if function.image else "a function whose runtime is not known"
            comments.append(
                f"{what}: {ON_LAMBDA}; invoker: http calls one behind a URL (docs/use/functions.md)"
            )
        case _ if runtime.startswith("python") and handler:
            settings = {"invoker": "python", "handler": handler, **_code(place)}
            comments.append("its modules are looked for from the folder in which the daemon is started")
        case _ if runtime.startswith("nodejs") and handler:
            settings = {
                "invoker": "process",
                "command": ["npx", "aws-lambda-ric", handler],
                "cwd": place or ".",
            }
            comments.append(f"{runtime}: npm install aws-lambda-ric beside the code")
        case _ if runtime.startswith("provided"):
            settings = {"invoker": "process", "command": ["./bootstrap"], "cwd": place or "."}
            comments.append(f"{runtime}: the program must lie in that folder, built for this machine")
        case _:
            settings = {"invoker": "lambda"}
            comments.append(f"runtime {runtime}: {ON_LAMBDA}; docs/use/functions.md has other ways")
    return FunctionDraft(
        name=function.name, settings={**settings, **_limits(function, settings["invoker"])}, comments=comments
    )


def missing_of(function: FoundFunction, draft: FunctionDraft) -> Iterator[str]:
    """One line for each thing that a function needs, and that the template does not tell."""
    place = f"functions.{draft.name}"
    if function.unnamed and draft.settings["invoker"] == "lambda":
        yield (
            f"{place}: AWS makes its name, by which it is called there; "
            f"give --parameter {function.name}=NAME (aws lambda list-functions)"
        )
    for name in ("runtime", "handler"):
        value = getattr(function, name)
        if isinstance(value, Unresolved):
            yield f"{place}: {name}: {value.why} ({value.written})"


def _code(place: str) -> dict[str, str]:
    """The setting for the folder of a Python function's modules: each function has its own ones, as on Lambda."""
    return {} if place in ("", ".") else {"code": place}


def _folder(code: object, folder: str) -> str:
    """The folder of the code as seen from where the template was named."""
    if not isinstance(code, str):
        return folder
    return str(PurePosixPath(folder, code)) if folder else str(PurePosixPath(code))


def _comments(function: FoundFunction, runtime: str) -> Iterator[str]:
    if function.unnamed:
        yield f"{function.name} is its logical id: the template has no name for it"
    if function.code is None and not function.image and runtime.startswith(("python", "nodejs", "provided")):
        yield "the template does not say where its code is on this machine"
    if function.variables:
        names = ", ".join(function.variables[:_NAMES_MAX])
        more = ", …" if len(function.variables) > _NAMES_MAX else ""
        yield f"environment variables, whose values are not copied: {names}{more}"
    if function.layers:
        yield "install what its layers hold"
    for name in function.left_out:
        yield f"{name} is not carried over: {ELSEWHERE[name]}"
    for name in ("runtime", "handler", "timeout", "memory", "concurrency"):
        value = getattr(function, name)
        if isinstance(value, Unresolved):
            yield f"{name} {value.written} is not resolved: {value.why}"


def _limits(function: FoundFunction, invoker: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    timeout, memory = _number(function.timeout), _number(function.memory)
    concurrency = _number(function.concurrency)
    if invoker != "lambda" and timeout is not None and 0 < timeout <= SECONDS_MAX:
        found["timeout_s"] = timeout
    if invoker != "lambda" and memory is not None and memory >= 1:
        found["memory_mb"] = memory
    if concurrency is not None and 1 <= concurrency <= COUNT_MAX:
        found["max_concurrency"] = concurrency
    return found


def _number(value: object) -> int | None:
    """A whole number, which a template may have in quotes."""
    return whole(value, most=NUMBER_MAX, default=None)
