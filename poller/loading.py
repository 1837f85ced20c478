"""Owns where settings come from, and what of it is misspelled or wrong.

Precedence: command line, environment (`POLLER_*`, nested with `__`), configuration file, defaults.
"""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from poller.complaints import Layer, complaints, known_names
from poller.errors import InvalidConfiguration
from poller.files import read_document
from poller.settings import ENV_PREFIX, Settings, laid_over

COMMAND_LINE_ONLY = {"config", "url"}
"""POLLER_* variables that stand for options of commands, not for settings."""


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the file at `path`, the environment and `overrides` (the command line, nested as the file is).

    Raises InvalidConfiguration with a line for every problem, whichever place it comes from.
    """
    problems: list[str] = []
    document: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    try:
        document = read_document(path) if path else {}
    except InvalidConfiguration as error:
        problems += error.problems
    try:
        environment = EnvSettingsSource(Settings, env_ignore_empty=True)()
    except SettingsError as error:
        problems.append(f"environment: {error}; write JSON, or one variable a setting with __ between names")
    problems += _misspelled(os.environ)
    layers = [
        Layer("command line", overrides or {}),
        Layer("environment " + ENV_PREFIX + "{name}", environment),
        Layer(str(path or "configuration").replace("{", "{{").replace("}", "}}"), document),
    ]
    if problems:
        raise InvalidConfiguration(problems)
    return _validated(layers)


def _validated(layers: Sequence[Layer]) -> Settings:
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = laid_over(merged, layer.values)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise InvalidConfiguration(complaints(error, model=Settings, layers=layers)) from None


def _misspelled(variables: Mapping[str, str]) -> list[str]:
    """POLLER_* variables that nearly name a setting.

    Others are not ours: Kubernetes sets POLLER_PORT, POLLER_SERVICE_HOST and more for a service called poller.
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
            problems.append(
                f"environment {variable}: unknown setting; did you mean {ENV_PREFIX}{near.upper()}?"
            )
    return problems


def _near(name: str, known: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), None)
