"""Owns how a command tells what is wrong, and its exit status then. It needs no settings, so that it is imported fast."""

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress

from poller.commands.fitting import print_lines
from poller.domain.errors import PROBLEM_CHARS_MAX
from poller.domain.untrusted.texts import line_of
from poller.output.last_words import for_people

FAILED = 2
"""Exit status of a command that failed."""


def print_problems(problems: Iterable[str], form: Callable[[str], str] = for_people) -> None:
    """Prints problems on stderr, one line each; a terminal gets them folded between words. `form` formats a line.

    If stderr cannot be written, the exit status has to do.
    """
    with suppress(OSError):
        for problem in problems:
            line = form(line_of(problem, chars_max=PROBLEM_CHARS_MAX))
            if form is for_people:
                print_lines(line.splitlines(), sys.stderr)
            else:
                print(line, end="", file=sys.stderr)
