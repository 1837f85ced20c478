"""The policies in deploy/iam grant exactly what the adapters call."""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.loaders
import pytest
from botocore import xform_name

ROOT = Path(__file__).parents[2]
IAM = ROOT / "deploy" / "iam"
ACTIONS = {
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "Invoke": "InvokeFunction",
    # A transaction needs the actions of its writes.
    "TransactWriteItems": "PutItem",
}
"""Operations that IAM knows by another name."""
PREFIXES = {"dynamodbstreams": "dynamodb"}
"""Services whose actions begin with another service's name."""


@dataclass(frozen=True, slots=True)
class Role:
    """A use of AWS: the policies that belong to it, and the service that the modules call for it."""

    policies: tuple[str, ...]
    service: str
    modules: tuple[str, ...]


ROLES = (
    Role(
        ("source-kinesis",),
        "kinesis",
        tuple(f"sources/kinesis/{part}.py" for part in ("stream", "plugin", "listing")),
    ),
    Role(("source-kinesis-fan-out",), "kinesis", ("sources/kinesis/fan_out.py",)),
    Role(("source-kinesis-own-consumer",), "kinesis", ("sources/kinesis/consumers.py",)),
    Role(("consumers",), "kinesis", ("commands/consumers/registered.py",)),
    Role(
        ("source-dynamodb",),
        "dynamodbstreams",
        ("sources/dynamodb_streams.py", "sources/listings/table_listing.py"),
    ),
    Role(("source-sqs",), "sqs", ("sources/sqs.py",)),
    Role(("source-sqs-skip",), "sqs", ("sources/sqs_dead_letters.py",)),
    Role(("destination-sqs",), "sqs", ("destinations/sqs.py",)),
    Role(("destination-sns",), "sns", ("destinations/sns.py",)),
    Role(("destination-s3",), "s3", ("destinations/s3.py",)),
    Role(("destination-events",), "events", ("destinations/events.py",)),
    Role(("destination-lambda",), "lambda", ("destinations/function.py",)),
    Role(("destination-payloads",), "s3", ("destinations/payloads.py", "destinations/s3.py")),
    Role(("redrive-sqs",), "sqs", ("notices/sqs.py",)),
    Role(("redrive-s3",), "s3", ("notices/s3.py", "notices/objects.py")),
    Role(("invoker-lambda",), "lambda", ("invokers/lambda_api.py",)),
    Role(
        ("store-dynamodb", "store-dynamodb-create"),
        "dynamodb",
        tuple(
            f"stores/dynamodb/{part}.py"
            for part in ("store", "calls", "memo_parts", "table", "call_rows", "call_parts")
        ),
    ),
    Role(("assume-role",), "sts", ("aws/identities.py",)),
    Role(("import-kcl",), "dynamodb", ("checkpoints/kcl.py",)),
)
CHECK = "check-live"
"""For the looks at what the daemon only writes to, and at other consumers."""
SIGNED = {"store-postgresql": ("stores/postgresql/credentials.py", "_SERVICE")}
"""Actions without a call: a token is signed for a service, whose name a constant of the module has."""
NO_ADAPTERS = {"keys", "trust-identity", "trust-irsa", "trust-pod-identity"}
"""Keys are used by the services themselves; the others say who may take the role."""


def operations(service: str) -> dict[str, str]:
    """Method name to operation, of botocore's model of a service."""
    model = botocore.loaders.Loader().load_service_model(service, "service-2")
    return {xform_name(operation): operation for operation in model["operations"]}


def called(tree: ast.AST) -> Iterator[str]:
    """Names of methods that are called on an object, and words given to those that call by name: `call`, `_call` and `FastOperation`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="_call" | "call"), args=[ast.Constant(value=str(method)), *_]
            ):
                yield method
            case ast.Call(
                func=ast.Name(id="FastOperation"), args=[_, ast.Constant(value=str(operation)), *_]
            ):
                yield xform_name(operation)
            case ast.Call(func=ast.Attribute(attr=method)):
                yield method


def needed(role: Role) -> set[str]:
    """IAM actions of the operations that the modules call."""
    known, prefix = operations(role.service), PREFIXES.get(role.service, role.service)
    trees = [ast.parse((ROOT / "adapters" / module).read_text()) for module in role.modules]
    found = {known[name] for tree in trees for name in called(tree) if name in known}
    return {f"{prefix}:{ACTIONS.get(operation, operation)}" for operation in found}


def statements(policy: str) -> list[dict[str, Any]]:
    """The statements of one policy."""
    document = json.loads((IAM / f"{policy}.json").read_text())
    assert document["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = document["Statement"]
    return found


def listed(value: str | list[str]) -> list[str]:
    """IAM lets a list of one stand as a word."""
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.policies[0])
def test_a_policy_grants_exactly_the_calls_that_its_adapter_makes(role: Role) -> None:
    granted = {
        action for policy in role.policies for each in statements(policy) for action in listed(each["Action"])
    }
    assert granted == needed(role)
    assert granted


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.policies[0])
def test_a_policy_names_its_resources(role: Role) -> None:
    for policy in role.policies:
        for each in statements(policy):
            assert each["Effect"] == "Allow"
            assert all(
                arn.startswith("arn:aws:") and not arn.endswith(":*:*") for arn in listed(each["Resource"])
            )


def test_every_policy_is_tested() -> None:
    tested = {policy for role in ROLES for policy in role.policies}
    assert {path.stem for path in IAM.glob("*.json")} == tested | NO_ADAPTERS | SIGNED.keys() | {CHECK}


@pytest.mark.parametrize(("policy", "signed"), SIGNED.items())
def test_a_policy_grants_exactly_what_a_token_is_signed_for(policy: str, signed: tuple[str, str]) -> None:
    module, name = signed
    (service,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "adapters" / module).read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    (granted,) = statements(policy)
    assert granted["Action"] == f"{service}:connect"
    assert granted["Resource"].startswith(f"arn:aws:{service}:eu-west-1:111122223333:dbuser:")
    assert granted["Resource"].endswith("/poller")
    page = (ROOT / "docs" / "operate" / "iam.md").read_text()
    line = next(line for line in page.splitlines() if f"deploy/iam/{policy}.json" in line)
    assert f"`{granted['Action']}`" in line


def test_the_policy_of_the_check_grants_what_only_looks_call() -> None:
    models = {service: operations(service).values() for service in ("lambda", "sqs", "sns", "s3", "kinesis")}
    asked = {
        operation
        for family in ("sources", "destinations")
        for node in ast.walk(ast.parse((ROOT / "adapters" / family / "checks.py").read_text()))
        for operation in _asked(node)
    }
    owners = {each: next(name for name, known in models.items() if each in known) for each in asked}
    actions = {f"{service}:{ACTIONS.get(each, each)}" for each, service in owners.items()}
    assert {action for each in statements(CHECK) for action in listed(each["Action"])} == actions
    page = (ROOT / "docs" / "operate" / "iam.md").read_text()
    line = next(line for line in page.splitlines() if f"deploy/iam/{CHECK}.json" in line)
    assert actions
    assert all(f"`{action}`" in line for action in actions)


def _asked(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Name(id="asked"), args=[_, ast.Constant(value=str(operation)), *_]):
            yield operation


def test_every_adapter_that_calls_aws_has_a_policy() -> None:
    calling = {
        str(path.relative_to(ROOT / "adapters"))
        for path in (ROOT / "adapters").rglob("*.py")
        if "clients.client(" in path.read_text() or "await client(" in path.read_text()
    }
    assert calling <= {module for role in ROLES for module in role.modules}
    assert calling


def test_the_table_in_the_documents_is_that_of_the_policies() -> None:
    page = (ROOT / "docs" / "operate" / "iam.md").read_text()
    for role in ROLES:
        for policy in role.policies:
            line = next(line for line in page.splitlines() if f"deploy/iam/{policy}.json" in line)
            actions = {action for each in statements(policy) for action in listed(each["Action"])}
            assert all(f"`{action}`" in line for action in actions), policy


def test_aws_managed_batch_calls_have_no_action_of_their_own() -> None:
    known = {**operations("sqs"), **operations("lambda"), **operations("s3"), **operations("dynamodb")}
    assert set(ACTIONS) <= set(known.values())
