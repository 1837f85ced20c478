"""Completion in shells: what a shell is given to load, and what it is answered when it asks.

Real shells press their keys in deploy/checks.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

import pytest
from typer.testing import CliRunner

from poller.cli import application
from poller.commands.root.completion import VARIABLE, Shell
from poller.commands.root.plugin_commands import COMMANDS

POINTS = list(entry_points(group=COMMANDS))


def asking(words: Sequence[str]) -> dict[str, str]:
    """The variables with which the script of bash asks how the last of these words may go on."""
    return {
        VARIABLE: "complete_bash",
        "COMP_WORDS": " ".join(["poller", *words]),
        "COMP_CWORD": str(len(words)),
    }


def answers(*words: str, points: Sequence[EntryPoint] = POINTS) -> list[str]:
    app = application(points, completing=True)
    return CliRunner().invoke(app, [], env=asking(words), prog_name="poller").stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("che", "check checkpoints"),
        ("check --conf", "--config"),
        ("checkpoints ", "export import"),
        ("completion ", "bash fish zsh"),
        ("init --invoker ", "http lambda process python"),
        ("init --starting-position T", "TRIM_HORIZON"),
        ("run --log-level w", "warning"),
        ("run --log-format ", "console json"),
        ("filter explain --source k", "kinesis"),
        ("mappings cr", "create"),
        ("mappings create --inp", "--input"),
        ("demo --rec", "--records"),
        ("check --config pol", ""),
    ],
)  # fmt: skip
def test_a_shell_is_answered_what_may_come_next(words: str, expected: str) -> None:
    assert sorted(answers(*words.split(" "))) == expected.split()


def test_a_plug_in_that_cannot_be_imported_completes_nothing() -> None:
    points = [EntryPoint("broken", "no_such_package:command", COMMANDS)]
    assert answers("bro", points=points) == ["broken"]
    assert answers("broken", "--", points=points) == []


def test_a_process_that_a_shell_asks_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "poller"],
        env={**os.environ, **asking(["mappings", "cr"])},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("create\n", "")


@pytest.mark.parametrize("shell", Shell)
def test_the_script_of_a_shell_calls_the_program(shell: Shell) -> None:
    found = CliRunner().invoke(application(POINTS), ["completion", shell])
    assert found.exit_code == 0
    assert f"{VARIABLE}=complete_{shell}" in found.stdout
    assert VARIABLE not in os.environ


def test_zsh_finds_in_the_first_line_what_the_script_is_for() -> None:
    found = CliRunner().invoke(application(POINTS), ["completion", "zsh"])
    assert found.stdout.startswith("#compdef poller\n")


def test_a_shell_without_a_script_is_refused_with_those_that_have_one() -> None:
    found = CliRunner().invoke(application(POINTS), ["completion", "tcsh"])
    assert found.exit_code == 2
    assert all(each in found.stderr for each in Shell)
