"""Owns the options and the help of `poller completion` and `poller version`. What they do is imported when they are called."""

from typing import Annotated

import typer

from poller.commands.root.completion import Shell, script


def completion(shell: Annotated[Shell, typer.Argument(help="The shell that shall complete words.")]) -> None:
    """Prints what a shell loads to complete commands, options and values of poller with the tab key.

    bash: ~/.local/share/bash-completion/completions/poller

    zsh: _poller in a folder of $fpath

    fish: ~/.config/fish/completions/poller.fish

    Example: poller completion bash > ~/.local/share/bash-completion/completions/poller
    """
    typer.echo(script(shell), nl=False)


def version(
    *, as_json: Annotated[bool, typer.Option("--json", help="JSON instead of lines.")] = False
) -> None:
    """Says what is installed here, for a report of a defect: versions, extras, plug-ins.

    It has no secrets, folders, variables or names of machines.

    Example: poller version --json
    """
    import json

    from poller.commands.root.installation import described, facts

    found = facts()
    typer.echo(json.dumps(found, indent=2) if as_json else described(found))
