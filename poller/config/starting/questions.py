"""Owns what must be known for a first configuration: which answers are needed, which are right, and the draft that they give."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from poller.config.field_types import store_url
from poller.config.mapping import source_kind
from poller.config.starting.draft import Draft, FunctionDraft, MappingDraft
from poller.config_errors.error_messages import complaints
from poller.config_errors.meant_arns import source_remedy
from poller.domain.arns import Arn, FunctionName
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import SourceKind
from poller.plugins import Registry

type Answers = Mapping[str, str]

STORE = "sqlite:poller.db"
INVOKERS = ("python", "http", "process", "lambda")
_OF_INVOKER = {"python": "handler", "http": "url", "process": "command"}
"""The setting that an invoker cannot be without."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question: the name of the answer, which is that of the option too, the text, and the answer of who answers nothing."""

    name: str
    text: str
    usual: str = ""
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The option that gives the answer."""
        return f"--{self.name.replace('_', '-')}"


_SOURCE = Question("source", "ARN of the Kinesis stream, DynamoDB stream, SQS queue or FIFO queue")
_FUNCTION = Question("function", "Name of the function")
_POSITION = Question("starting_position", "Where it begins", "TRIM_HORIZON", ("TRIM_HORIZON", "LATEST"))
_INVOKER = Question("invoker", "How the function is called", "python", INVOKERS)
_STORE = Question("store", "Where positions are kept", STORE)
_SETTINGS = {
    "handler": Question("handler", "Python handler, as shop.handlers:orders or app.handler"),
    "url": Question("url", "URL that events are posted to"),
    "command": Question(
        "command", "Command that speaks Lambda's Runtime API, as python -m awslambdaric app.handler"
    ),
}


def questions(answers: Answers) -> Iterator[Question]:
    """The questions that these answers leave, in order. An answer can bring further ones, so ask for them again after each."""
    for question in _wanted(answers):
        if question.name not in answers:
            yield question


def needed(answers: Answers) -> Iterator[Question]:
    """The questions without whose answers there is no configuration."""
    return (each for each in questions(answers) if each is not _STORE)


def _wanted(answers: Answers) -> Iterator[Question]:
    yield _SOURCE
    if _kind(answers.get("source", "")) not in (None, SourceKind.SQS):
        yield _POSITION
    yield _FUNCTION
    yield _INVOKER
    if (setting := _OF_INVOKER.get(answers.get("invoker", ""))) is not None:
        yield _SETTINGS[setting]
    yield _STORE


def problem(question: Question, text: str, answers: Answers, registry: Registry) -> str:
    """What is wrong with an answer, and the remedy; empty if it is right."""
    if question.choices and text not in question.choices:
        return f"not one of the choices; write {', '.join(question.choices)}"
    checks: dict[str, Callable[[], object]] = {
        "source": lambda: _checked_source(text, registry),
        "function": lambda: _checked_function(text),
        "store": lambda: store_url(text),
        **{name: lambda: _checked_setting(question.name, text, answers, registry) for name in _SETTINGS},
    }
    try:
        checks.get(question.name, lambda: None)()
    except ValueError as error:
        return str(error)
    return ""


def first_draft(answers: Answers) -> Draft:
    """The configuration that complete answers give."""
    source = answers["source"]
    name = FunctionName.parse(answers["function"])
    invoker = answers["invoker"]
    setting = _OF_INVOKER.get(invoker, "")
    settings: dict[str, Any] = {"invoker": invoker}
    if setting:
        settings[setting] = _value(setting, answers[setting])
    if invoker != "lambda":
        settings["timeout_s"] = 30
    mapping: dict[str, Any] = {"FunctionName": answers["function"], "EventSourceArn": source}
    if "starting_position" in answers:
        mapping["StartingPosition"] = answers["starting_position"]
    comments = _COMMENTS[_kind(source) or SourceKind.SQS]
    if Arn.parse(source).fifo:
        comments = (
            "A FIFO queue: one batch of a message group at a time, in order. BatchSize: 10 at most.",
            *comments[1:],
        )
    return Draft(
        store=answers.get("store", STORE),
        region=answers.get("region", "") or Arn.parse(source).region,
        functions=[FunctionDraft(name=name.name, settings=settings, comments=_ABOUT[invoker])],
        mappings=[MappingDraft(members=mapping, comments=comments)],
        comments=[
            "Written by `poller init`. `poller check --config FILE` says what would run, or what is wrong."
        ],
    )


_ABOUT = {
    "python": (
        "Called in the daemon, one call at a time; isolation: process and processes: 4 run calls beside each other.",
    ),
    "http": ("Events are posted as JSON; 429 is throttled, 502 to 504 unreachable.",),
    "process": ("Started as child processes, one for each call that runs at the same time.",),
    "lambda": ("Stays on AWS Lambda, with its own time limit.",),
}
_STREAM = (
    "A failed batch is tried again until its records are gone, unless one of these says otherwise:",
    "MaximumRetryAttempts: 5, MaximumRecordAgeInSeconds: 3600, BisectBatchOnFunctionError: true,",
    "DestinationConfig: {OnFailure: {Destination: ARN}}. BatchSize is 100, ParallelizationFactor 1.",
)
_COMMENTS = {
    SourceKind.KINESIS: ("A Kinesis stream: each shard in order.", *_STREAM),
    SourceKind.DYNAMODB: ("A DynamoDB table's stream: each shard in order.", *_STREAM),
    SourceKind.SQS: (
        "A standard queue. BatchSize is 10; more needs MaximumBatchingWindowInSeconds.",
        "FunctionResponseTypes: [ReportBatchItemFailures] lets the function name the messages that failed.",
        "ScalingConfig: {MaximumConcurrency: 5} bounds how many batches run at once.",
    ),
}


def _kind(arn: str) -> SourceKind | None:
    try:
        return source_kind(arn)
    except ValueError:
        return None


def _checked_source(text: str, registry: Registry) -> None:
    kind = _kind(text)
    if kind is None:
        raise ValueError(f"no source that is read here; {source_remedy(text)}")
    _validated("sources", kind.value, {"arn": text}, registry)


def _checked_function(text: str) -> None:
    try:
        FunctionName.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}; write NAME or an ARN, each with :QUALIFIER or without") from None


def _value(setting: str, text: str) -> Any:
    return shlex.split(text) if setting == "command" else text


def _checked_setting(setting: str, text: str, answers: Answers, registry: Registry) -> None:
    _validated("invokers", answers["invoker"], {setting: _value(setting, text)}, registry)


def _validated(kind: str, name: str, given: dict[str, Any], registry: Registry) -> None:
    """Raises ValueError for the first setting that a plug-in refuses."""
    try:
        model = registry.plugin(kind, name).settings
    except InvalidConfiguration as error:
        raise ValueError("; ".join(error.problems)) from None
    more = {"function": "x"} if "function" in model.model_fields else {}
    try:
        model.model_validate({**more, **given})
    except ValidationError as error:
        found = complaints(error, model)[0]
        raise ValueError("; ".join(filter(None, (found.wrong, found.remedy)))) from None
