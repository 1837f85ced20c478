"""Owns what `poller store` does: it opens the plug-in of a URL to make or migrate the store, or looks at it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import BaseModel

from poller.clock import LoopClock
from poller.commands.fitting import print_lines
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.shared import LoadablePlugins
from poller.config.field_types import store_name
from poller.domain.errors import InvalidConfiguration, PortError
from poller.domain.findings import Finding, Severity
from poller.operator_ports import StoreVersion
from poller.plugins import Environment, Plugin, validated
from poller.ports import Probe

STORE_S_MAX = 300.0
"""The time limit of one command. A migration of large tables may take minutes."""
_PLACE = "store"

type Step = Callable[[Plugin[Any, Any], str, Environment], Awaitable[int]]


def init(url: str, *, region: str | None) -> int:
    """Makes the store unless it is there; returns the exit status."""
    return _run(_init, url, region=region)


def migrate(url: str, *, region: str | None) -> int:
    """Brings an existing store to the newest version; returns the exit status."""
    return _run(_migrate, url, region=region)


def check(url: str, *, region: str | None) -> int:
    """Checks the store without making or changing anything; returns the exit status."""
    return _run(_check, url, region=region)


def _run(step: Step, url: str, *, region: str | None) -> int:
    try:
        return asyncio.run(_stepped(step, url, region=region))
    except InvalidConfiguration as wrong:
        print_problems(wrong.problems)
    except PortError as trouble:
        print_problems([_with_remedy(trouble.reason.removeprefix(f"{_PLACE}: "))])
    except TimeoutError:
        print_problems(
            [f"{_PLACE}: no answer within {STORE_S_MAX:g} s; nothing was changed that was not finished"]
        )
    return FAILED


async def _stepped(step: Step, url: str, *, region: str | None) -> int:
    try:
        name = store_name(url)
    except ValueError as error:
        raise InvalidConfiguration([f"{_PLACE}: {error}"]) from None
    env = Environment(clock=LoopClock(steady=time.monotonic), region=region)
    try:
        async with asyncio.timeout(STORE_S_MAX):
            return await step(LoadablePlugins().plugin("stores", name), url, env)
    finally:
        await env.shared.close()


async def _init(plugin: Plugin[Any, Any], url: str, env: Environment) -> int:
    there, known = await _versions(plugin, url, env)
    if there is None or there == 0:
        await _open(plugin, url, env)
        return _done("it is ready" if known is None else f"it is ready, with version {known}")
    if there < (known or 0):
        raise InvalidConfiguration(
            [f"{_PLACE}: it has version {there}, not {known}; run poller store migrate"]
        )
    return _done(f"it was ready before, with version {there}")


async def _migrate(plugin: Plugin[Any, Any], url: str, env: Environment) -> int:
    there, known = await _versions(plugin, url, env)
    if there is None:
        await _open(plugin, url, env)
        return _done("it has the newest version")
    if there == 0:
        raise InvalidConfiguration(
            [f"{_PLACE}: there is nothing to migrate; run poller store init, or correct the URL"]
        )
    if there == known:
        return _done(f"it had version {there} before")
    await _open(plugin, url, env)
    return _done(f"it was migrated from version {there} to {known}")


async def _check(plugin: Plugin[Any, Any], url: str, env: Environment) -> int:
    findings = await _findings(plugin, url, env)
    problems = [each for each in findings if each.grade is Severity.PROBLEM]
    fine = [each.check for each in findings if each.grade is Severity.OK]
    doubts = [each for each in findings if each.grade in (Severity.WARNING, Severity.UNTRIED)]
    print_lines([f"{_PLACE}: {', '.join(dict.fromkeys(fine))}: ok"] if fine else [])
    print_lines([f"{_PLACE}: {each.grade}: {each.line}" for each in doubts])
    print_problems(f"{_PLACE}: {each.line}" for each in problems)
    return FAILED if problems else 0


async def _findings(plugin: Plugin[Any, Any], url: str, env: Environment) -> Sequence[Finding]:
    if plugin.look is None:
        return [
            Finding("open", Severity.UNTRIED, "the plug-in of this store can only open it, not look at it")
        ]
    async with plugin.look(_settings(plugin, url), env) as looked:
        return await looked.probe() if isinstance(looked, Probe) else [Finding("open", Severity.OK)]


async def _versions(plugin: Plugin[Any, Any], url: str, env: Environment) -> tuple[int | None, int | None]:
    """Returns the version that is there, 0 if there is nothing, and the one that this poller needs; None for a store without versions."""
    if plugin.look is None:
        return None, None
    async with plugin.look(_settings(plugin, url), env) as looked:
        return await looked.versions() if isinstance(looked, StoreVersion) else (None, None)


async def _open(plugin: Plugin[Any, Any], url: str, env: Environment) -> None:
    """Opens the store so that it makes or migrates what it needs, and closes it again."""
    async with plugin.open(_settings(plugin, url, create=True), env):
        return


def _settings(plugin: Plugin[Any, Any], url: str, *, create: bool = False) -> BaseModel:
    model = validated(plugin, {"url": url}, place=_PLACE)
    if create and "create" in type(model).model_fields:
        return model.model_copy(update={"create": True})
    return model


def _with_remedy(reason: str) -> str:
    usual = "correct the URL, or what the role or user may do; see docs/operate/stores.md"
    return f"{_PLACE}: {reason}" if "; " in reason else f"{_PLACE}: {reason}; {usual}"


def _done(what: str) -> int:
    print_lines([f"{_PLACE}: {what}"])
    return 0
