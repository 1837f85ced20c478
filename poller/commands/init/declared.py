"""Owns the options and the help of `poller init` and `poller schema`. What they do is imported when they are called."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from poller.commands.options import given_options, grouped, one_of

Text = str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """The answers to the questions, as options."""

    source: Annotated[Text, typer.Option("--source", metavar="ARN", help="The event source.")] = None
    starting_position: Annotated[
        Text,
        typer.Option(
            "--starting-position",
            help="For streams: TRIM_HORIZON or LATEST.",
            autocompletion=one_of("TRIM_HORIZON", "LATEST"),
        ),
    ] = None
    function: Annotated[Text, typer.Option("--function", metavar="NAME", help="Name or ARN.")] = None
    invoker: Annotated[
        Text,
        typer.Option(
            "--invoker",
            help="python, http, process or lambda.",
            autocompletion=one_of("python", "http", "process", "lambda"),
        ),
    ] = None
    handler: Annotated[Text, typer.Option("--handler", help="For python: module:function.")] = None
    url: Annotated[Text, typer.Option("--url", help="For http: where events are posted to.")] = None
    command: Annotated[Text, typer.Option("--command", help="For process: a program with its words.")] = None
    store: Annotated[Text, typer.Option("--store", help="URL of the store; sqlite:poller.db without it.")] = (
        None
    )
    region: Annotated[Text, typer.Option("--region", help="AWS region; that of the source without it.")] = (
        None
    )


@grouped
def init(
    *,
    output: Annotated[
        str, typer.Option("--output", metavar="FILE", help="The file to write; - for the terminal.")
    ] = "poller.yaml",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    template: Annotated[
        Path | None,
        typer.Option(
            "--from-template",
            metavar="TEMPLATE",
            help="Of SAM, CloudFormation, CDK or Serverless Framework.",
            show_default=False,
        ),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", metavar="NAME=VALUE", help="A value that the template does not have."),
    ] = None,
    account: Annotated[str, typer.Option("--account", help="The account that a template is for.")] = "",
    answers: AnswerOptions,
) -> None:
    """Writes a first configuration, with comments, that poller check accepts, and the schema for editors beside it.

    On a terminal it asks for what the options do not say. Elsewhere it names the options that are missing.

    With --from-template it carries over the event source mappings of a template, and the functions that they call. What the template
    alone does not tell stands as a comment where it belongs, and is listed on stderr: give it by --region, --account, or --parameter, whose
    NAME is that of a parameter, a resource (Orders=NAME), an attribute (Orders.StreamArn=ARN), an export or a variable (opt:stage=prod).
    Values of NoEcho parameters and of environment variables are never copied.

    Exit status 0: all is written; 1: something could not be carried over; 2: nothing is written.

    Example: poller init --source arn:aws:sqs:eu-west-1:111122223333:mails --function mails --invoker python --handler shop.handlers:mails

    Example: poller init --from-template template.yaml --region eu-west-1 --account 111122223333
    """
    from poller.commands.init.command import InitOptions
    from poller.commands.init.command import init as write_file

    options = InitOptions(
        answers=given_options(asdict(answers)),
        output=output,
        force=force,
        template=template,
        parameters=parameters or (),
        account=account,
    )
    asking = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    raise typer.Exit(write_file(options, _ask if asking else None))


def _ask(text: str) -> str:
    """The line that a person writes; ends the command at the end of the input."""
    print(text, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise typer.Abort
    return line


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
