"""Owns how settings are loaded, and the search for misspelled and wrong ones.

Precedence: command line, environment (`POLLER_*`, nested with `__`), configuration file, defaults.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from poller.config.cross_checks.identities import unknown_identities
from poller.config.cross_checks.misfits import misfit_errors
from poller.config.cross_checks.qualifiers import unknown_qualifiers
from poller.config.partial_checks import hidden_errors
from poller.config.plugin_settings import plugin_errors, plugins_in
from poller.config.quoted_flags import quoted_flags
from poller.config.settings import ENV_PREFIX, Settings, merged_settings
from poller.config.yaml_files import NameNotText, UnreadableNow, read_document
from poller.config_errors.error_messages import Layer, SettingError, complaints, lines, origin_is_last
from poller.config_errors.known_names import Path as Place
from poller.config_errors.known_names import known_names
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Registry

COMMAND_LINE_ONLY = {"config", "token", "url"}
"""POLLER_* variables that are for commands and are not settings."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The result of an examination: the settings if they have no problem, else `problems`, one line each.

    `lacking` says what is missing on this machine. The daemon does not start without it, but it may run on another machine.
    """

    settings: Settings | None
    problems: list[str]
    lacking: list[str]
    doubts: list[str] = field(default_factory=list)
    """Settings that do not prevent a start but may be mistakes, one line each."""


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the file at `path`, the environment and `overrides` (the command line, nested as the file is).

    Raises UnreadableNow if the file cannot be read now, and InvalidConfiguration with one line for each problem, from all of these places. Settings of plug-ins are not checked;
    `examine` checks them too.
    """
    return _settled(_examined(path, overrides, None))


def load_all(path: Path, overrides: Mapping[str, Any], registry: Registry) -> Settings:
    """As `load`, for a daemon that starts on this machine: also checks plug-in settings and what the machine must have."""
    found = _examined(path, overrides, registry)
    return _settled(Examined(found.settings, [*found.problems, *found.lacking], []))


def examine(path: Path, overrides: Mapping[str, Any], registry: Registry) -> Examined:
    """Finds everything that would prevent a daemon from starting with these settings, without opening anything."""
    try:
        return _examined(path, overrides, registry)
    except UnreadableNow as error:
        return Examined(None, error.problems, [])


def _settled(found: Examined) -> Settings:
    if found.settings is None or found.problems:
        raise InvalidConfiguration(found.problems)
    return found.settings


def _examined(path: Path | None, overrides: Mapping[str, Any] | None, registry: Registry | None) -> Examined:
    problems: list[str] = []
    unnamed: list[str] = []
    document: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    try:
        document = read_document(path) if path else {}
    except UnreadableNow:
        raise
    except NameNotText as error:
        unnamed, document = error.problems, error.rest
    except InvalidConfiguration as error:
        problems += error.problems
    unread = bool(problems)
    environment = _environment(problems)
    problems += unnamed
    problems += _misspelled(os.environ)
    layers = [
        Layer("command line", overrides or {}),
        Layer("environment " + ENV_PREFIX + "{name}", environment),
        Layer(str(path or "configuration").replace("{", "{{").replace("}", "}}"), document),
    ]
    if unread:
        return Examined(None, problems, [])
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = merged_settings(merged, layer.values)
    settings, found = _read(merged)
    quoted = [each for each in quoted_flags(document, registry) if origin_is_last(each.path, layers)]
    found = _with_new(found, quoted)
    if registry is not None:
        found = _with_new(found, dict.fromkeys(_plugin_errors(merged, registry)))
    problems += lines([each for each in found if not each.here and not each.mild], layers)
    return Examined(
        None if problems else settings,
        problems,
        lacking=lines([each for each in found if each.here], layers),
        doubts=lines([each for each in found if each.mild and each.path[0] in merged], layers),
    )


def _environment(problems: list[str]) -> dict[str, Any]:
    """The settings from environment variables. Variables that cannot be read are added to `problems` by name."""
    source = EnvSettingsSource(Settings, env_ignore_empty=True)
    given = {name: text for name, text in source.env_vars.items() if name.upper().startswith(ENV_PREFIX)}
    for name in list(given):
        source.env_vars = {name: given[name]}
        try:
            source()
        except SettingsError:
            where = f"environment {name.upper()}"
            problems.append(
                f"{where}: is no JSON; write JSON, or one variable a setting with __ between names"
            )
        else:
            continue
        given = {each: value for each, value in given.items() if each != name}
    source.env_vars = given
    return source()


def _read(document: Mapping[str, Any]) -> tuple[Settings | None, list[SettingError]]:
    try:
        return Settings(**document), []
    except ValidationError as error:
        found = complaints(error, Settings)
        return None, _with_new(found, hidden_errors(document, found))


def _plugin_errors(document: Mapping[str, Any], registry: Registry) -> Iterator[SettingError]:
    for part in plugins_in(document):
        yield from plugin_errors(part, registry)
    yield from unknown_identities(document, registry)
    yield from misfit_errors(document, registry)
    yield from unknown_qualifiers(document)


def _with_new(found: Sequence[SettingError], later: Iterable[SettingError]) -> list[SettingError]:
    """The errors in `found`, and those in `later` that are about other settings."""
    reported = {each.path for each in found}
    return [*found, *(each for each in later if reported.isdisjoint(_prefixes(each.path)))]


def _prefixes(path: Place) -> list[Place]:
    return [path[:length] for length in range(1, len(path) + 1)]


def _misspelled(variables: Mapping[str, str]) -> list[str]:
    """Problems of POLLER_* variables whose names are close to a setting's.

    Other variables are ignored: Kubernetes sets POLLER_PORT, POLLER_SERVICE_HOST and more for a service with the name poller.
    """
    known = list(Settings.model_fields)
    nested = {
        f"{name}_{inner}": f"{name}__{inner}" for name in known for inner in known_names(Settings, (name,))
    }
    problems = []
    for variable in variables:
        upper = variable.upper()
        name = upper.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if not upper.startswith(ENV_PREFIX) or name in known or name in COMMAND_LINE_ONLY:
            continue
        if name in nested:
            meant = f"did you mean {ENV_PREFIX}{nested[name].upper()}?"
            problems.append(f"environment {variable}: unknown setting; {meant}")
        elif near := _near(name, known):
            meant = "__".join([near.upper(), *upper.split("__")[1:]])
            problems.append(f"environment {variable}: unknown setting; did you mean {ENV_PREFIX}{meant}?")
    return problems


def _near(name: str, known: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), None)
