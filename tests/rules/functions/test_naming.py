"""How callers of the Invoke API name functions, and by which ARN these are called."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.plan import FunctionPlan
from poller.rules.functions.naming import (
    QUALIFIERS_DIFFER,
    UnknownFunction,
    WrongName,
    mapped_arns,
    named_function,
)

CONFIGURED = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
MAPPED = "arn:aws:lambda:eu-central-1:444455556666:function:mapped"
NOWHERE = "arn:aws:lambda:us-east-1:000000000000:function:lonely"
FUNCTIONS = {
    "orders": FunctionPlan(name="orders", invoker="python", arn=CONFIGURED),
    "mapped": FunctionPlan(name="mapped", invoker="python"),
    "lonely": FunctionPlan(name="lonely", invoker="process"),
    "remote": FunctionPlan(name="remote", invoker="lambda", arn=CONFIGURED.replace("orders", "remote")),
}
ARNS = mapped_arns([f"{MAPPED}:live", MAPPED.replace("444455556666", "777788889999")])


@pytest.mark.parametrize(
    ("text", "qualifier", "arn"),
    [
        ("orders", "", CONFIGURED),
        ("orders", "$LATEST", f"{CONFIGURED}:$LATEST"),
        ("orders:$LATEST", "", f"{CONFIGURED}:$LATEST"),
        ("orders:$LATEST", "$LATEST", f"{CONFIGURED}:$LATEST"),
        ("function:orders", "", CONFIGURED),
        ("111122223333:function:orders", "", CONFIGURED),
        ("111122223333:orders", "", CONFIGURED),
        (CONFIGURED, "", CONFIGURED),
        ("mapped", "", MAPPED),
        (MAPPED, "", MAPPED),
        ("lonely", "", NOWHERE),
        ("remote:7", "", f"{CONFIGURED.replace('orders', 'remote')}:7"),
        ("remote", "live", f"{CONFIGURED.replace('orders', 'remote')}:live"),
    ],
)
def test_a_name_or_an_arn_names_a_function(text: str, qualifier: str, arn: str) -> None:
    found = named_function(text, qualifier, FUNCTIONS, ARNS)
    assert found.arn == arn
    assert found.plan.name in text


@pytest.mark.parametrize(
    ("text", "qualifier", "said"),
    [
        ("nothing", "", "Function not found: arn:aws:lambda:us-east-1:000000000000:function:nothing"),
        ("orders", "live", f"Function not found: {CONFIGURED}:live"),
        ("999999999999:orders", "", "function:orders"),
        (CONFIGURED.replace("eu-west-1", "eu-west-2"), "", "eu-west-2"),
    ],
)
def test_a_function_that_is_not_configured_is_unknown(text: str, qualifier: str, said: str) -> None:
    with pytest.raises(UnknownFunction, match=said.replace("$", r"\$")):
        named_function(text, qualifier, FUNCTIONS, ARNS)


def test_two_qualifiers_must_be_the_same() -> None:
    with pytest.raises(WrongName) as error:
        named_function("orders:1", "2", FUNCTIONS, ARNS)
    assert str(error.value) == QUALIFIERS_DIFFER


@given(st.text(max_size=400), st.text(max_size=200))
def test_any_text_names_a_function_or_is_refused(text: str, qualifier: str) -> None:
    with suppress(UnknownFunction, WrongName):
        found = named_function(text, qualifier, FUNCTIONS, ARNS)
        assert found.plan in FUNCTIONS.values()
        assert found.plan.name in text
