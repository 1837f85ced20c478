"""Owns the options and the help of `poller init` and `poller schema`. What they do is imported when they are called."""

import typer


def schema() -> None:
    """Prints the JSON Schema (draft 2020-12) of the configuration file, for editors.

    A line at the top of poller.yaml, as poller init writes it, tells an editor where the schema lies:

    `# yaml-language-server: $schema=./poller.schema.json`

    It is made from what poller check validates by, for the plug-ins that are installed here. Rules between settings, and the forms of
    URLs and ARNs, only poller check sees.

    Example: poller schema > poller.schema.json
    """
    from poller.commands.init.schema import schema_text

    typer.echo(schema_text(), nl=False)
