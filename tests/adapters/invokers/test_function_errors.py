"""Error documents of every runtime, and hostile ones: type, message and stack trace are plain, clean and bounded."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.invokers.lambda_api import outcome_of
from adapters.invokers.outcomes import error_document, failed, reported_failure
from adapters.invokers.stack_traces import stack_of
from poller.domain.invocations import (
    ERROR_MESSAGE_CHARS_MAX,
    ERROR_TYPE_CHARS_MAX,
    STACK_LINE_CHARS_MAX,
    STACK_LINES_MAX,
    FunctionError,
)
from tests.hostile_texts import HOSTILE, fit

hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())

DEEP = json.loads("[" * 900 + "]" * 900)

DOCUMENTS: list[tuple[str, Any, tuple[str, ...]]] = [
    (
        "Python",
        {"stackTrace": ['  File "/var/task/app.py", line 3, in handler\n    raise ValueError("x")\n']},
        ('  File "/var/task/app.py", line 3, in handler', '    raise ValueError("x")'),
    ),
    (
        "old Python",
        {"stackTrace": [["/var/task/app.py", 3, "handler", "raise ValueError()"]]},
        ('  File "/var/task/app.py", line 3, in handler', "    raise ValueError()"),
    ),
    (
        "Node.js",
        {"trace": ["Error: no", "    at handler (/var/task/index.js:3:9)"]},
        ("Error: no", "    at handler (/var/task/index.js:3:9)"),
    ),
    ("Java", {"stackTrace": ["app.Handler.run(Handler.java:7)"]}, ("app.Handler.run(Handler.java:7)",)),
    (
        "Go",
        {"stackTrace": [{"path": "github.com/x/main.go", "line": 12, "label": "main.handler"}]},
        ("  github.com/x/main.go:12 main.handler",),
    ),
    ("one text", {"stackTrace": "at a\r\nat b"}, ("at a", "at b")),
    ("none", {}, ()),
    ("null", {"stackTrace": None}, ()),
    ("a number", {"stackTrace": 7}, ()),
    ("an object", {"stackTrace": {"a": 1}}, ()),
    ("entries of all kinds", {"stackTrace": [1, None, {"a": 1}, [], "x"]}, ("1", "{'a': 1}", "[]", "x")),
    ("nested too deeply", {"stackTrace": [DEEP, "x"]}, ()),
]


@pytest.mark.parametrize(
    ("document", "lines"), [row[1:] for row in DOCUMENTS], ids=[row[0] for row in DOCUMENTS]
)
def test_the_stack_trace_of_every_runtime_is_lines(document: dict[str, Any], lines: tuple[str, ...]) -> None:
    found = reported_failure({"errorType": "E", "errorMessage": "m", **document}, error_type="")
    assert found == FunctionError("E", "m")
    if document.get("stackTrace") != [DEEP, "x"]:
        assert found.stack_trace == lines
    assert bounded(found)


def bounded(error: FunctionError) -> bool:
    """Whether all that is kept of an error is clean and has an end."""
    texts = (error.error_type, error.message, *error.stack_trace)
    limits = (ERROR_TYPE_CHARS_MAX, ERROR_MESSAGE_CHARS_MAX)
    json.dumps(texts, ensure_ascii=False).encode()
    return (
        all(fit(text) for text in texts)
        and len(error.error_type) <= limits[0]
        and len(error.message) <= limits[1]
        and len(error.stack_trace) <= STACK_LINES_MAX
        and all(len(line) <= STACK_LINE_CHARS_MAX for line in error.stack_trace)
    )


@hostile
def test_hostile_texts_are_cleaned_where_they_enter(text: str) -> None:
    assert bounded(failed(text, text, stack_trace=[text, text]))


@hostile
def test_hostile_documents_are_read(text: str) -> None:
    document = {
        "errorType": text,
        "errorMessage": text,
        "stackTrace": [text, [text, 1, text], {"path": text}],
    }
    body = json.dumps(document).encode()
    over_http = error_document(body)
    assert over_http is not None
    assert bounded(over_http)
    on_lambda = outcome_of({"FunctionError": text or "Unhandled"}, body, 30.0)
    assert isinstance(on_lambda, FunctionError)
    assert bounded(on_lambda)
    assert fit(on_lambda.function_error)


@pytest.mark.parametrize("value", [None, 0, 1.5, True, [], {}, {"a": [1]}, DEEP, ""])
def test_members_of_any_type_are_read(value: Any) -> None:
    found = reported_failure({"errorType": value, "errorMessage": value, "stackTrace": value}, error_type="E")
    assert found.error_type
    assert bounded(found)


def test_a_huge_stack_trace_is_read_in_little_time() -> None:
    document = {"errorType": "E", "errorMessage": "m", "stackTrace": ["x\n" * 1000] * 3000}
    began = time.perf_counter()
    assert bounded(reported_failure(document, error_type=""))
    assert time.perf_counter() - began < 2


class Lying(Exception):
    """Says that it has no traceback."""

    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no traceback")


def test_an_exception_cannot_hide_where_it_was_raised() -> None:
    try:
        raise Lying
    except Lying as error:
        [entry] = stack_of(error)
    assert entry.endswith("in test_an_exception_cannot_hide_where_it_was_raised\n    raise Lying")


def test_an_exception_that_was_never_raised_has_no_stack() -> None:
    assert stack_of(ValueError()) == []


@pytest.mark.parametrize("digits", [1, 4300, 4301, 200_000])
def test_an_error_document_with_a_long_number_is_no_success(digits: int) -> None:
    body = b'{"errorType": "Full", "errorMessage": "no", "left": ' + b"9" * digits + b"}"
    assert error_document(body) == FunctionError("Full", "no", "$LATEST")


def _nested(depth: int) -> bytes:
    return b'{"errorType": "Deep", "errorMessage": "no\\u0021", "a": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize("depth", [1 << power for power in range(22)])
def test_an_error_document_that_is_nested_deeply_is_no_success(depth: int) -> None:
    assert error_document(_nested(depth)) == FunctionError("Deep", "no!", "$LATEST")


def test_names_further_in_make_no_error_document_of_a_deep_answer() -> None:
    deep = b"[" * 1_000_000
    assert error_document(b'{"a": {"errorType": "E", "errorMessage": "m"}, "b": ' + deep) is None
    assert error_document(b'{"errorType": "E", "a": "errorMessage", "errorMessage": ' + deep) is None
    assert error_document(b'["errorType", "errorMessage", ' + deep) is None


@pytest.mark.parametrize(
    "odd", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", bytes(range(0x80, 0x100))]
)
@pytest.mark.parametrize("place", ["errorMessage", "requestId", "stackTrace"])
def test_an_error_document_with_bytes_that_are_no_text_is_no_success(odd: bytes, place: str) -> None:
    document = {"errorType": "Odd", "errorMessage": "m", "requestId": "r", "stackTrace": ["s"]}
    document[place] = "@"
    found = error_document(json.dumps(document).encode().replace(b"@", odd))
    assert found is not None
    assert found.error_type == "Odd"
    assert found.message
    assert bounded(found)


@given(st.binary(max_size=40), st.integers(0, 40), st.integers(1, 100_000))
def test_whatever_follows_type_and_message_the_function_has_failed(
    odd: bytes, place: int, depth: int
) -> None:
    kept = odd.replace(b'"', b"").replace(b"\\", b"")
    text = bytes(byte for byte in kept if byte >= 0x20)
    body = b'{"errorMessage": "m", "errorType": "E", "x": "%s", "y": %s}' % (
        text[:place],
        b"[" * depth + b"]" * depth,
    )
    assert error_document(body) == FunctionError("E", "m", "$LATEST")


def test_lambda_reports_a_document_that_cannot_be_read_as_a_whole() -> None:
    found = outcome_of({"FunctionError": "Unhandled"}, _nested(1 << 20), 30.0)
    assert found == FunctionError("Deep", "no!", "$LATEST", "Unhandled")
