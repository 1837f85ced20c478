"""Owns what several commands need: the plug-in registry and environment, and what is odd in settings that are valid."""

import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from poller.clock import LoopClock
from poller.config.field_types import is_host
from poller.config.settings import Settings
from poller.config_errors.known_names import one_letter_apart, question
from poller.domain.arns import FunctionName
from poller.domain.errors import InvalidConfiguration
from poller.output.last_words import LastWords
from poller.output.queued_output import DroppedLines
from poller.plugins import Environment, InstalledPlugins, Plugin
from poller.process_identity import LocalProcess

NEAR_MAX = 3
COMPARISONS_MAX = 1_000_000
"""Of names of functions; it takes about a second. A file may have ten thousand mappings and as many functions."""
_BESIDE = Path(__file__).parents[2]
"""Where the package `poller` lies, and others of its distribution."""


_HOW_TO_RUN = "write one with FunctionName and EventSourceArn (docs/use/configuration.md), or make it with `poller mappings create`"
_HOW_TO_CALL = "; functions can be called with a key of api.access_keys_file (docs/use/invoke.md)"


class LoadablePlugins:
    """Installed plug-ins. If a plug-in cannot be imported, that is reported as an error of the configuration."""

    def __init__(self) -> None:
        self._installed = InstalledPlugins()

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in. Raises InvalidConfiguration with the known names, or with the error of its import."""
        try:
            return self._installed.plugin(kind, name)
        except ImportError as error:
            problem = f"plug-in {name!r} among {kind} cannot be loaded: {error}; {_remedy(error)}"
            raise InvalidConfiguration([problem]) from error


def _remedy(error: ImportError) -> str:
    """What to do about a plug-in that cannot be loaded. Another package may have been imported in place of one beside `poller`."""
    name = (error.name or "").partition(".")[0]
    module = sys.modules.get(name)
    known = [*getattr(module, "__path__", ()), getattr(module, "__file__", None)]
    places = [Path(each) for each in known if each]
    if places and (_BESIDE / name).is_dir() and all(_BESIDE not in each.parents for each in places):
        return f"{places[0]} hides the daemon's own; start it by `poller`, not `python -m poller`, and without that folder in PYTHONPATH"
    return "install what it needs"


def environment(
    settings: Settings, dropped_lines: DroppedLines | None = None, last_words: LastWords | None = None
) -> Environment:
    """What plug-ins may know of this daemon. The caller closes its `shared`."""
    return Environment(
        clock=LoopClock(steady=time.monotonic),
        region=settings.region,
        endpoint_url=settings.endpoint_url,
        endpoint_urls=settings.endpoint_urls,
        identities={name: each.named(name) for name, each in settings.identities.items()},
        process=LocalProcess(),
        dropped_lines=dropped_lines or DroppedLines(),
        last_words=last_words or LastWords(),
    )


def observer_settings(settings: Settings, process: int | None = None) -> dict[str, dict[str, Any]]:
    """The observers of a daemon, by plug-in name, with their settings. `process` is its index if a supervisor has started it."""
    log = {"format": settings.log.format, "level": settings.log.level.value, "process": process}
    return {"prometheus": {}, "logs": log}


def control_settings(settings: Settings, listening: int | None = None) -> dict[str, Any]:
    """The settings of the control server. `listening` is the descriptor of a socket that listens already."""
    return {"listen": settings.listen, "api": settings.api.model_dump(), "listening": listening}


def nothing_runs(settings: Settings, *, calls: bool = True) -> list[str]:
    """One line if no configured mapping runs: there is none, or all are disabled. With `calls`, functions may be there for calls alone."""
    if any(each.Enabled is not False for each in settings.mappings):
        return []
    if calls and settings.resources.enabled:
        return []
    callable_ = bool(settings.api.access_keys_file) or settings.api.allow_unauthenticated
    if calls and settings.functions and not settings.mappings and callable_:
        return []
    what = "every mapping has Enabled: false" if settings.mappings else "there is none"
    or_call = _HOW_TO_CALL if calls and settings.functions and not callable_ else ""
    then = "nothing of this file will run" if calls else "a dry run has nothing to read"
    return [f"mappings: {what}, so that {then}; {_HOW_TO_RUN}{or_call}"]


def unlike_names(settings: Settings) -> list[str]:
    """One line for each mapping whose function is not configured but has nearly the name of a configured one."""
    found = []
    known = {each: _folded(each) for each in settings.functions}
    comparisons = 0
    for index, mapping in enumerate(settings.mappings):
        name = FunctionName.parse(mapping.FunctionName).name
        if name in known:
            continue
        comparisons += len(known)
        if comparisons > COMPARISONS_MAX:
            break
        wanted = _folded(name)
        near = [each for each, folded in known.items() if one_letter_apart(wanted, folded)]
        if near:
            what = f"{name!r} is not below functions, so that {settings.default_invoker} calls it"
            found.append(f"mappings[{index}].FunctionName: {what}; {question(near[:NEAR_MAX])}")
    return found


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


def url_problem(url: str) -> str:
    """Why `url` cannot be the address of a daemon, with the remedy; empty if it can."""
    try:
        parts = urlsplit(url)
        # The port is parsed only here, and may be no number or beyond 65535.
        right = parts.scheme in ("http", "https") and is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        right = False
    right = right and url.isprintable() and " " not in url
    return "" if right else f"--url: value {url!r}: not an HTTP URL; write http://HOST:PORT"
