"""Owns the options that commands share, and how a command takes several options as one dataclass."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

MARKUP: Literal["markdown"] = "markdown"
"""How help texts are read: the lines of a paragraph are filled anew, whatever the width of the source or of the screen."""
Region = Annotated[str | None, typer.Option("--region", help="AWS region.")]
Config = Annotated[
    Path,
    typer.Option(
        "--config", envvar="POLLER_CONFIG", help="The configuration file (YAML).", show_default=False
    ),
]
Store = Annotated[str | None, typer.Option("--store", help="URL of the store, as sqlite:///var/lib/p.db.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", help="URL for all AWS services.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]

TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="A file with a token, for a daemon whose reads need one; else POLLER_TOKEN is sent.",
        show_default=False,
    ),
]


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Returns what completes the value of an option in a shell, for options that have few values."""

    def completed(incomplete: str) -> list[str]:
        return [each for each in values if each.startswith(incomplete)]

    return completed


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """Settings of the configuration file that most commands also accept as options."""

    store: Store = None
    region: Region = None
    endpoint_url: Endpoint = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Wraps a command for typer: each keyword-only parameter that is a dataclass is replaced by one option for each of its fields."""
    own = inspect.signature(command, eval_str=True)
    groups = {
        name: (each.annotation, inspect.signature(each.annotation, eval_str=True).parameters)
        for name, each in own.parameters.items()
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }

    @wraps(command)
    def called(**given: Any) -> None:
        for name, (group, fields) in groups.items():
            given[name] = group(**{field: given.pop(field) for field in fields})
        command(**given)

    seen = [each for name, each in own.parameters.items() if name not in groups]
    for _, fields in groups.values():
        seen += [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields.values()]
    called.__dict__["__signature__"] = own.replace(parameters=seen)
    return called


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value."""
    nested = {
        name: given_options(value) if isinstance(value, Mapping) else value for name, value in options.items()
    }
    return {name: value for name, value in nested.items() if value not in (None, {})}


def loaded_or_exit[Loaded](load: Callable[[], Loaded]) -> Loaded:
    """What `load` returns. If it raises InvalidConfiguration, prints the problems and ends the command."""
    from poller.commands.root.problems import FAILED, print_problems
    from poller.domain.errors import InvalidConfiguration

    try:
        return load()
    except InvalidConfiguration as error:
        print_problems(error.problems)
        raise typer.Exit(FAILED) from None
