"""Variables of Serverless Framework: sources, defaults, variables in variables, and what is not read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.rules.templates.values import Given, Unresolved, unresolved_in
from poller.rules.templates.variables import Variables

SERVICE: dict[str, Any] = {
    "service": "shop",
    "provider": {"name": "aws", "stage": "${opt:stage, 'test'}", "region": "eu-west-1"},
    "custom": {
        "sizes": {"test": 5, "prod": 50},
        "names": ["a", "b"],
        "size": "${self:custom.sizes.${self:provider.stage}}",
        "loop": "${self:custom.pool}",
        "pool": "${self:custom.loop}",
        "me": "x${self:custom.me}",
        "arn": {"Fn::GetAtt": ["Queue", "Arn"]},
    },
}


def value(node: object, *, given_: Given | None = None) -> Any:
    return Variables(SERVICE, given_ or Given()).value(node)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${self:service}", "shop"),
        ("${self:service}-${self:provider.stage}", "shop-test"),
        ("${self:custom.size}", 5),
        ("${self:custom.names.1}", "b"),
        ("${self:custom.arn}", {"Fn::GetAtt": ["Queue", "Arn"]}),
        ("${self:custom.none, 7}", 7),
        ("${self:custom.none, self:custom.names.0}", "a"),
        ("${opt:x, 'a, b'}", "a, b"),
        ('${opt:x, "q"}', "q"),
        ("${opt:x, true}", True),
        ("${opt:x, dev}", "dev"),
        ("${opt:x, ${self:service}}", "shop"),
        ("${sls:stage}", "test"),
        ("${aws:region}", "eu-west-1"),
        ("${AWS::Region} ${Name}", "${AWS::Region} ${Name}"),
        ("${file(x.yml):name, 'd'}", "d"),
        ("${env:SECRET, 'd'}", "d"),
        ("${file(x.yml), file(y.yml), 7}", 7),
        ({"a": ["${self:service}"]}, {"a": ["shop"]}),
    ],
)
def test_a_variable_is_resolved(text: object, expected: object) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("${env:SECRET}", "variable of the environment, which is not read"),
        ("${ssm:/a/b}", "ssm is not looked up"),
        ("${cf:stack.Arn}", "cf is not looked up"),
        ("${file(x.yml):name}", "is in another file, which is not read"),
        ("${file(x.yml)}", "is in another file, which is not read; give --parameter file(x.yml)=VALUE"),
        ("${opt:x}", "has no value; give --parameter opt:x=VALUE"),
        ("${self:custom.none}", "has no value"),
        ("${self:custom.loop}", "refers to itself"),
        ("${self:custom.me}", "refers to itself"),
        ("${aws:accountId}", "--account"),
        ("a-${env:X}-b", "not read"),
    ],
)
def test_a_variable_without_a_value_is_named(text: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hush")
    found = value(text)
    assert isinstance(found, Unresolved)
    assert why in found.why


def test_what_the_user_gives_is_taken() -> None:
    given_ = Given({"stage": "prod", "ssm:/a": "v", "env:X": "e"}, "us-east-1", "1")
    assert value("${self:custom.size}", given_=given_) == 50
    assert value("${ssm:/a}-${env:X}-${aws:region}-${aws:accountId}", given_=given_) == "v-e-us-east-1-1"


@pytest.mark.parametrize(
    "stages",
    [
        {"params": {"default": {"batch": 5, "name": "x"}, "test": {"batch": 7}}},
        {"stages": {"default": {"params": {"batch": 5, "name": "x"}}, "test": {"params": {"batch": 7}}}},
    ],
)
def test_parameters_of_the_stage_come_before_those_of_all_stages(stages: dict[str, Any]) -> None:
    variables = Variables({**SERVICE, **stages}, Given())
    assert variables.value("${param:batch}") == 7
    assert variables.value("${param:name}") == "x"
    assert variables.value("${param:none, 3}") == 3
    assert Variables({**SERVICE, **stages}, Given({"param:batch": "9"})).value("${param:batch}") == "9"
    assert Variables({**SERVICE, **stages}, Given({"stage": "prod"})).value("${param:batch}") == 5


@pytest.mark.parametrize(
    "service",
    [
        {"provider": {"stage": "${param:stage}"}, "params": {"default": {"stage": "${param:stage}"}}},
        {"provider": {"stage": "${param:stage}"}, "params": {"${param:stage}": {"stage": "x"}}},
        {"provider": {}, "params": {"default": {"a": "${param:b}", "b": "${param:a}"}}},
        {"provider": {}, "params": "${file(p.yml)}"},
        {"provider": {}, "params": {"default": "${file(p.yml)}"}},
        {"provider": {}, "params": 5, "stages": [1]},
    ],
)
def test_parameters_of_any_form_end(service: dict[str, Any]) -> None:
    for name in ("a", "stage"):
        found = Variables(service, Given()).value(f"${{param:{name}}}")
        assert isinstance(found, Unresolved)
        assert found.why


@given(st.text(alphabet="${}:self.cutom,' opt()x", max_size=60))
def test_a_text_of_any_form_is_resolved_or_named(text: str) -> None:
    for each in unresolved_in(value({"a": text})):
        assert each.why
