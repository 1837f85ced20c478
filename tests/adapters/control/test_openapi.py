"""Schemathesis against the server: what the OpenAPI document says is what is answered, whatever is sent."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from adapters.control.invoke.invoke_api import INVOKE_STREAMED
from adapters.control.openapi.document import document
from adapters.control.openapi.lambda_paths import NAME_PATTERN, SOURCE_PATTERN
from adapters.control.settings import ApiSettings
from poller.config.aws_validation import violations
from poller.config.mapping import EventSourceMapping
from poller.config.violations import ViolationType as Objected
from poller.config.violations import answer
from poller.domain.access import Reads
from poller.domain.functions.alias_control import AliasChange
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.operations import Operation, function_of
from poller.domain.records import Epoch, MappingId
from tests.adapters.control.invoke.callers import CallerModel
from tests.adapters.control.live.test_updates import Kept
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.peeked import PeekModel
from tests.adapters.control.serving import Running, Setting, serving
from tests.adapters.control.test_lambda_api import ON_QUEUE, ON_STREAM, QUEUE_BODY, STREAM_BODY

EXAMPLES = 15
PATIENCE_S = 600.0
"""After so long a run hangs. It takes about half a minute of a processor, beside other work several times as long."""
SERVED_S = PATIENCE_S + 30.0
"""The server outlives a run that hangs, so that what ends the test is the run, with its report."""
TEST_S = SERVED_S + 30.0
SEED = 20260101
CONFIGURATION = """
# A schema cannot say that a text is the base64 of a JSON object, so Invoke may refuse a client context that fits the schema.
[[operations]]
include-name = "POST /2015-03-31/functions/{name}/invocations"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "403", "404", "413", "429"]

# Nor can it say that the version of a weight is another one than the alias's, or that a RevisionId is the last one.
[[operations]]
include-path-regex = "/aliases"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "412"]
"""
SELECTED = "Selected: 46/48"


class ModelRules(MappingModel):
    """Mappings that refuse what AWS's API model forbids, and nothing else: that is what a schema can say."""

    async def create(self, request: Mapping[str, Any]) -> MappingView:
        refuse(request)
        return await super().create(request)

    async def update(self, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
        refuse({**ON_QUEUE, **request})
        return await super().update(mapping, request)


def refuse(request: Mapping[str, Any]) -> None:
    """What the schema cannot let through: a real service would not find such a source or function."""
    for name, pattern in (("FunctionName", NAME_PATTERN), ("EventSourceArn", SOURCE_PATTERN)):
        if not re.search(pattern, request.get(name, "")):
            raise ApiError(ApiErrorType.PARAMETER, f"{name} does not exist")
    try:
        mapping = EventSourceMapping.model_validate(request)
    except ValidationError as error:
        raise ApiError(ApiErrorType.VALIDATION, str(error)) from None
    found = violations(mapping, now=Epoch(2e12))
    told = answer([each for each in found if each.fault is Objected.VALIDATION])
    if told is not None:
        raise ApiError(ApiErrorType(told[0].value), told[1])


def with_aliases() -> CallerModel:
    """Functions with versions, and one with the alias `live`."""
    caller = CallerModel(versions=("1", "2"))
    asyncio.run(caller.aliases.create("orders", "live", AliasChange(version="1")))
    return caller


class OperationRules(OperationModel):
    """Operations that refuse what the schema of a request forbids, and nothing else."""

    async def submit(self, mapping: MappingId, request: Mapping[str, Any], *, by: str) -> Operation:
        name = "OperationRequest" if function_of(mapping) is None else "CallOperationRequest"
        schema = {
            "$ref": f"#/components/schemas/{name}",
            "components": document()["components"],
        }
        if not jsonschema_rs.is_valid(schema, request):
            raise ApiError(ApiErrorType.PARAMETER, "a member is wrong")
        return await super().submit(mapping, request, by=by)


async def schemathesis(run: Running, folder: Path, *more: str) -> tuple[int, str]:
    """Exit status and report of a run over all operations and phases."""
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    words = [
        "run",
        f"{run.url}/v1/openapi.json",
        f"--max-examples={EXAMPLES}",
        f"--seed={SEED}",
        # An address may ask a hundred times a second.
        "--rate-limit=90/s",
        # DELETE cancels an operation, which is shown further on.
        "--exclude-checks=use_after_free",
        # It does not end by itself; test_updates.py reads it.
        "--exclude-path=/v1/updates",
        # It is not served, which its only status says; test_invoke_api.py calls it.
        f"--exclude-path={INVOKE_STREAMED}",
        "--no-color",
        *more,
    ]
    program = Path(sys.executable).with_name("st")

    def call() -> tuple[int, str]:
        done = subprocess.run(
            [program, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        return done.returncode, done.stdout + done.stderr

    return await asyncio.to_thread(call)


@pytest.mark.acceptance
@pytest.mark.timeout(TEST_S)
def test_schemathesis_finds_nothing_where_reads_need_a_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text("looker: {token: see-1, role: view}\n")
    model = ModelRules()
    api = ApiSettings(tokens_file=tokens, reads=Reads.TOKEN)
    operations = OperationRules()
    setting = Setting(
        api=api,
        control=model,
        tags=model,
        operations=operations,
        functions=model,
        peeking=PeekModel(),
        calls=with_aliases(),
        history=Kept(3),
        patience_s=SERVED_S,
    )
    status, report = serving(
        lambda run: schemathesis(run, tmp_path, "--header=Authorization: Bearer see-1"), setting
    )
    assert status == 0, report
    assert SELECTED in report
    assert model.asked == []


@pytest.mark.acceptance
@pytest.mark.timeout(TEST_S)
@pytest.mark.parametrize("everybody", [False, True], ids=["with credentials", "without credentials"])
def test_schemathesis_finds_nothing(everybody: bool, tmp_path: Path) -> None:
    model = ModelRules()
    setting = Setting(
        api=ApiSettings(allow_unauthenticated=everybody, show_payloads=everybody),
        control=model,
        tags=model,
        operations=OperationRules(),
        peeking=PeekModel(),
        calls=with_aliases(),
        history=Kept(3),
        functions=model,
        patience_s=SERVED_S,
    )
    status, report = serving(lambda run: schemathesis(run, tmp_path), setting)
    assert status == 0, report
    assert SELECTED in report
    assert bool(model.asked) is everybody


@pytest.mark.parametrize("body", [QUEUE_BODY, STREAM_BODY])
def test_the_documents_schema_fits_a_mapping_and_not_less(body: str) -> None:
    components = document()["components"]
    schema = {"$ref": "#/components/schemas/Mapping", "components": components}
    mapping = json.loads(body)
    jsonschema_rs.validate(schema, mapping)
    for name in mapping:
        less = {key: value for key, value in mapping.items() if key != name}
        assert not jsonschema_rs.is_valid(schema, less)


@pytest.mark.parametrize(
    ("request_json", "fits"),
    [
        (ON_QUEUE, True),
        (ON_STREAM, True),
        ({**ON_QUEUE, "BatchSize": None, "Unknown": 1}, True),
        ({**ON_QUEUE, "BatchSize": 0}, False),
        ({**ON_QUEUE, "BatchSize": "10"}, False),
        ({**ON_QUEUE, "FunctionResponseTypes": ["other"]}, False),
        ({**ON_QUEUE, "Topics": ["a"]}, False),
        ({"EventSourceArn": ON_QUEUE["EventSourceArn"]}, False),
        ({**ON_QUEUE, "EventSourceArn": "orders"}, False),
    ],
)
def test_the_schema_of_a_request_says_what_is_taken(request_json: dict[str, Any], fits: bool) -> None:
    schema = {"$ref": "#/components/schemas/CreateRequest", "components": document()["components"]}
    assert jsonschema_rs.is_valid(schema, request_json) is fits
