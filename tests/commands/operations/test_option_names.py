"""What a daemon refuses or reports with the members of a request is said with the options of the command."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer

from poller.cli import application
from poller.commands.operations.option_names import in_options
from poller.commands.root.plugin_commands import COMMANDS
from poller.domain.operations import Action

POLLER = Path(__file__).parents[3] / "poller"
PLACES = (
    "rules/operations",
    "rules/streams",
    "rules/queues",
    "runtime/operations",
    "runtime/streams",
    "runtime/queues",
)
"""Where operations are refused and carried out."""


def texts() -> Iterator[str]:
    """Every text of these places, with a word for what is put into it."""
    for place in PLACES:
        for path in sorted((POLLER / place).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(
                        str(each.value) if isinstance(each, ast.Constant) else "X" for each in node.values
                    )


def options() -> set[str]:
    """The options of all commands that ask for an operation."""
    commands = getattr(typer.main.get_command(application(entry_points(group=COMMANDS))), "commands", {})
    return {name for action in Action for each in commands[action].params for name in each.opts}


REQUESTS = sorted({text for text in texts() if re.search(r'\b(write|add) "\w+": true|\bin shards\b', text)})


def test_there_are_such_texts() -> None:
    assert len(REQUESTS) >= 5


@pytest.mark.parametrize("text", REQUESTS)
def test_no_remedy_of_a_command_is_written_as_json(text: str) -> None:
    said = in_options(text)
    assert '": true' not in said
    assert " in shards" not in said
    named = re.findall(r"--[a-z-]+", said)
    assert named
    assert set(named) <= options()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("action: a queue has nothing to reset", "a queue has nothing to reset"),
        ("records_per_s: is no number", "--records-per-s: is no number"),
        ("shards: 'zz' is no shard", "--shard: 'zz' is no shard"),
        (
            "to: a sequence number belongs to one shard; name it in shards",
            "--to: a sequence number belongs to one shard; name it with --shard",
        ),
        ("poller-0: m-1: deleted", "poller-0: m-1: deleted"),
        ("1 record skipped", "1 record skipped"),
        ("", ""),
    ],
)
def test_the_field_of_a_refusal_is_the_option(text: str, said: str) -> None:
    assert in_options(text) == said


def test_each_option_that_a_refusal_may_name_exists() -> None:
    from poller.commands.operations.option_names import _OPTIONS

    assert set(_OPTIONS.values()) <= options()
