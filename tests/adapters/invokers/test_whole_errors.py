"""The whole document of a function's error: every invoker has it for a call that asks for it, and for no other."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from adapters.invokers.outcomes import ANSWER_BYTES_MAX, for_caller
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded
from poller.ports import Invoker
from poller.testing.invoker import ERROR_CHARS, REQUEST_ID, invocation
from tests.contracts.invokers import (
    behind_url,
    in_processes,
    on_lambda,
    python_in_processes,
    python_in_threads,
    python_on_loop,
)

type Opener = Callable[..., AbstractAsyncContextManager[Invoker]]

OPENERS: list[Opener] = [
    python_on_loop,
    python_in_threads,
    python_in_processes,
    in_processes,
    behind_url,
    on_lambda,
]
TEXT = "x\ty\U0001f600" * 50_000
FAILS = {"do": "fail", "text": TEXT}


@pytest.fixture(autouse=True)
def credentials(account: str) -> None:
    """Credentials that no service checks."""


def whole(event: Any) -> Invocation:
    """A call that asks for the document."""
    return replace(invocation(event), whole_error=True)


@pytest.mark.parametrize("opener", OPENERS, ids=lambda opener: opener.__name__)
def test_a_caller_gets_the_whole_error_and_a_batch_does_not(opener: Opener) -> None:
    async def run() -> list[Outcome]:
        async with opener() as invoker:
            return [await invoker.invoke(call) for call in (whole(FAILS), invocation(FAILS))]

    for_a_caller, for_a_batch = asyncio.run(run())
    assert isinstance(for_a_caller, FunctionError)
    assert isinstance(for_a_batch, FunctionError)
    document = json.loads(for_a_caller.document)
    assert (document["errorMessage"], document["errorType"]) == (f"boom {TEXT}", "ValueError")
    assert for_a_batch.document == b""
    assert for_a_caller == for_a_batch
    assert len(for_a_caller.message) == ERROR_CHARS
    if opener in (python_on_loop, python_in_threads, python_in_processes, in_processes):
        assert document["requestId"] == REQUEST_ID
        assert 'raise ValueError("boom " + event.get("text", ""))\n' in document["stackTrace"][-1]
        assert list(document) == ["errorMessage", "errorType", "requestId", "stackTrace"]


@pytest.mark.parametrize("opener", [python_on_loop, python_in_processes], ids=lambda opener: opener.__name__)
def test_an_error_that_is_larger_than_an_answer_has_no_whole_document(opener: Opener) -> None:
    async def run() -> list[Outcome]:
        async with opener() as invoker:
            return [
                await invoker.invoke(whole({"do": "fail", "times": times}))
                for times in (ANSWER_BYTES_MAX, ANSWER_BYTES_MAX // 2)
            ]

    large, fits = asyncio.run(run())
    assert isinstance(large, FunctionError)
    assert isinstance(fits, FunctionError)
    # What a process sends is what is kept of the error.
    assert len(large.document) < 4 * ERROR_CHARS
    assert large.message.startswith("boom ")
    assert ANSWER_BYTES_MAX // 2 < len(fits.document) <= ANSWER_BYTES_MAX


@pytest.mark.parametrize(("size", "kept"), [(ANSWER_BYTES_MAX, True), (ANSWER_BYTES_MAX + 1, False)])
def test_a_document_of_any_invoker_has_an_end(size: int, kept: bool) -> None:
    error = FunctionError("E", "m", document=b"x" * size)
    found = for_caller(error, whole({}))
    assert isinstance(found, FunctionError)
    assert (found, bool(found.document)) == (error, kept)
    assert for_caller(Succeeded(b"1"), whole({})) == Succeeded(b"1")
