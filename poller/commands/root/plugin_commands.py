"""Owns the commands that plug-ins add. A plug-in is imported when its command is called, or when a shell completes its words."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperGroup

from poller.commands.options import MARKUP

COMMANDS = "poller.commands"
"""Entry point group of plug-in commands: a name, and a function that typer can call or a Typer with commands."""
OWN_COMMANDS = {
    "adapters.commands.consumers.declared:app": "The consumers of Kinesis streams that mappings have of their own. AWS charges for each.",
    "adapters.commands.mappings:app": "Event source mappings through Lambda's API: a daemon's (the default), or AWS's own with --aws.",
    "adapters.demo.command:demo": "Runs the main job on this machine alone, and accounts for every record.",
}
"""What the overview says of plug-in commands that come with this distribution; they are not imported for it."""
FAILED = 2


def group_of(points: Mapping[str, EntryPoint]) -> type[TyperGroup]:
    """The class of a group with these plug-in commands. It loads one when a shell asks how its words go on."""

    class PluginGroup(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            # Commands are parsed with `resilient_parsing` only to complete them.
            point = points.get(name or "")
            if point is not None and ctx.resilient_parsing:
                with suppress(ImportError):
                    return name, typer.main.get_command(_app_of(point)), rest
            return name, command, rest

    return PluginGroup


def add_plugin_commands(app: typer.Typer, points: Mapping[str, EntryPoint]) -> None:
    """Adds the plug-in commands, in the order of their names."""
    for name, point in sorted(points.items()):
        app.command(
            name=name,
            help=OWN_COMMANDS.get(point.value) or f"A plug-in command; poller {name} --help says more.",
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_forwarded(point))


def _app_of(point: EntryPoint) -> typer.Typer:
    function = point.load()
    if isinstance(function, typer.Typer):
        return function
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=MARKUP)
    app.command(name=point.name)(function)
    return app


def _forwarded(point: EntryPoint) -> Callable[[typer.Context], None]:
    """A command that loads the plug-in's function when it is called, and passes the arguments on unchanged."""

    def forward(context: typer.Context) -> None:
        try:
            app = _app_of(point)
        except ImportError as error:
            typer.echo(f"poller: {point.name}: {error}; {_remedy(point)}", err=True)
            raise typer.Exit(FAILED) from None
        app(args=context.args, prog_name=f"poller {point.name}")

    return forward


def _remedy(point: EntryPoint) -> str:
    distribution = point.dist
    if distribution is None:
        return "install what it needs"
    extras = distribution.metadata.get_all("Provides-Extra") or []
    wanted = f"{distribution.name}[{point.name}]" if point.name in extras else distribution.name
    return f"install it with: pip install '{wanted}'"
