"""Owns `poller init`: it asks or takes options, or reads a template, and writes a configuration file with the schema beside it."""

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from poller.commands.init.schema import schema_text
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.shared import LoadablePlugins
from poller.config.loader import Examined, examine
from poller.config.starting.from_template import from_template
from poller.config.starting.questions import STORE, Question, first_draft, needed, problem, questions
from poller.config.starting.template_files import read_template
from poller.config.starting.written import SCHEMA_FILE, written
from poller.domain.errors import InvalidConfiguration
from poller.output.progress_line import ProgressLine, ticking_by_timer
from poller.rules.templates.values import Given
from poller.start_folder import from_start_folder, start_folder

INCOMPLETE = 1
"""Exit status of a template of which something could not be carried over."""
ASKED_MAX = 20
"""How often one question is asked before the command gives up."""
_OWN = '"title": "poller\'s configuration"'
STDOUT = "-"

type AskPerson = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """What the command line says. `answers` are those to the questions; `parameters` are `NAME=VALUE`."""

    answers: Mapping[str, str]
    output: str = "poller.yaml"
    force: bool = False
    template: Path | None = None
    parameters: Sequence[str] = field(default_factory=tuple)
    account: str = ""


def init(options: InitOptions, ask: AskPerson | None) -> int:
    """Writes the file; returns the exit status. `ask` asks a person, and is None where nobody can answer."""
    try:
        _refuse_mixture(options)
        _look_at(options)
        if options.template is not None:
            return _from_template(options, options.template)
        answers = _answered(options.answers, ask)
        text = written(first_draft(answers))
        found = _examined(text)
        if found.problems:
            raise InvalidConfiguration(found.problems)
        _write(text, options)
        print_problems(f"warning: {line}" for line in found.lacking)
    except InvalidConfiguration as error:
        print_problems(error.problems)
        return FAILED
    return 0


def _look_at(options: InitOptions) -> None:
    """Refuses to begin where nothing could be written, before a person has answered anything."""
    if options.output != STDOUT and Path(options.output).exists() and not options.force:
        raise InvalidConfiguration([_there(options.output)])


def _refuse_mixture(options: InitOptions) -> None:
    """Refuses options that belong to the other way: a template has no answers, and answers need no template."""
    own = {"store", "region"}
    strange = [Question(name, "").option for name in options.answers if name not in own]
    if options.template is None:
        strange = [
            *(["--parameter"] if options.parameters else ()),
            *(["--account"] if options.account else ()),
        ]
    if strange:
        which = "goes" if len(strange) == 1 else "go"
        way = "with" if options.template is None else "without"
        raise InvalidConfiguration([f"init: {', '.join(strange)} {which} {way} --from-template only"])


def _there(output: str) -> str:
    return f"{output}: is there already; choose another name with --output, or --force to replace it"


def _from_template(options: InitOptions, template: Path) -> int:
    region = options.answers.get("region", "")
    given = Given(dict(_parameter(each) for each in options.parameters), region, options.account)
    with ProgressLine() as progress, ticking_by_timer(progress):
        progress.say(f"reading {template}")
        document = read_template(template)
        progress.say("carrying over its functions and mappings")
        store = options.answers.get("store", STORE)
        carried = from_template(document, given, place=_relative(template), store=store)
        text = written(carried.draft)
        progress.say("checking what is written")
        problems = [] if carried.left else _examined(text).problems
    _write(text, options)
    print_problems(f"left out: {line}" for line in carried.skipped)
    print_problems(f"not carried over: {line}" for line in carried.left)
    print_problems(problems)
    return INCOMPLETE if carried.left or problems else 0


def _parameter(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise InvalidConfiguration([f"--parameter: value {text!r}: not NAME=VALUE; write both"])
    return name, value


def _relative(template: Path) -> PurePath:
    """The path from the current folder if the template lies below it, since handlers are found from there."""
    path = Path(os.path.normpath(from_start_folder(template)))
    here = start_folder()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _answered(given: Mapping[str, str], ask: AskPerson | None) -> dict[str, str]:
    """The complete answers. Raises InvalidConfiguration for those that are wrong or missing."""
    registry = LoadablePlugins()
    wrong: list[str] = []
    answers: dict[str, str] = {"region": given["region"]} if given.get("region") else {}
    missing: list[Question] = []
    skipped: set[str] = set()
    while (
        question := next((each for each in questions(answers) if each.name not in skipped), None)
    ) is not None:
        text = given.get(question.name)
        if text is not None:
            found = problem(question, text, answers, registry)
            if found:
                wrong.append(f"{question.option}: value {text!r}: {found}")
            answers[question.name] = text
        elif ask is not None:
            answers[question.name] = _asked(question, ask, answers, registry)
        else:
            missing.append(question)
            skipped.add(question.name)
    required = {each.name for each in needed(answers)}
    lacking = [each.option for each in missing if each.name in required]
    if lacking:
        wrong.append(f"init: missing {', '.join(lacking)}; give them, or run it on a terminal, which asks")
    unused = [Question(name, "").option for name in given if name not in answers and name != "region"]
    if unused and not lacking:
        wrong.append(f"init: {', '.join(unused)}: of no use here; remove them")
    if wrong:
        raise InvalidConfiguration(wrong)
    return answers


def _asked(question: Question, ask: AskPerson, answers: Mapping[str, str], registry: LoadablePlugins) -> str:
    choices = f" ({', '.join(question.choices)})" if question.choices else ""
    usual = f" [{question.usual}]" if question.usual else ""
    for _ in range(ASKED_MAX):
        text = ask(f"{question.text}{choices}{usual}: ").strip() or question.usual
        found = problem(question, text, answers, registry)
        if not found:
            return text
        print_problems([found])
    raise InvalidConfiguration([f"init: no answer to {question.option}; give it on the command line"])


def _examined(text: str) -> Examined:
    """What the loader says of a text, without the name of the file in which it is read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "poller.yaml"
        path.write_text(text, encoding="utf-8")
        found = examine(path, {}, LoadablePlugins())
    own = [[line.removeprefix(f"{path}: ") for line in part] for part in (found.problems, found.lacking)]
    return Examined(found.settings, own[0], own[1])


def _write(text: str, options: InitOptions) -> None:
    if options.output == STDOUT:
        sys.stdout.write(text)
        return
    path = Path(options.output)
    try:
        with open(path, "w" if options.force else "x", encoding="utf-8") as file:
            file.write(text)
        schema = path.with_name(SCHEMA_FILE)
        if schema.exists() and _OWN not in schema.read_text(encoding="utf-8", errors="replace"):
            print_problems([f"warning: {schema}: is another file, and is left as it is"])
        else:
            schema.write_text(schema_text(), encoding="utf-8")
    except FileExistsError:
        raise InvalidConfiguration([_there(options.output)]) from None
    except OSError as error:
        raise InvalidConfiguration([f"{error.filename}: cannot be written: {error.strerror}"]) from None
    print(f"{path} and {schema.name} are written; next: poller check --config {path}", file=sys.stderr)
