"""Owns what several commands need: the plug-ins' registry and environment, and how problems are told."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from poller.clock import LoopClock
from poller.errors import InvalidConfiguration
from poller.plugins import Environment, InstalledPlugins, Plugin
from poller.processes import LocalProcess
from poller.settings import Settings

FAILED = 2
"""Exit status of a command that could not do what it was asked to."""


class LoadablePlugins:
    """Installed plug-ins; one that cannot be imported is a wrong configuration that names what is missing."""

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in, or InvalidConfiguration with the known names or with what its import lacks."""
        try:
            return InstalledPlugins().plugin(kind, name)
        except ImportError as error:
            problem = f"plug-in {name!r} among {kind} cannot be loaded: {error}; install what it needs"
            raise InvalidConfiguration([problem]) from error


def environment(settings: Settings) -> Environment:
    """What plug-ins may know of this daemon; its `shared` is the caller's to close."""
    return Environment(
        clock=LoopClock(steady=time.monotonic),
        region=settings.region,
        endpoint_url=settings.endpoint_url,
        endpoint_urls=settings.endpoint_urls,
        process=LocalProcess(),
    )


def observer_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """The observers of a daemon and what each is told."""
    return {"prometheus": {}, "logs": {"format": settings.log.format, "level": settings.log.level.value}}


def control_settings(settings: Settings) -> dict[str, Any]:
    """What the control server is told."""
    return {"listen": settings.listen, "api": settings.api.model_dump()}


def tell(problems: Iterable[str]) -> None:
    """One line each on stderr."""
    for problem in problems:
        print(f"poller: {problem}", file=sys.stderr)
