"""CloudFormation's functions: what a template tells, what it does not, and that nothing in it goes on for ever."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.rules.templates.intrinsics import Resolver
from poller.rules.templates.values import (
    DEPTH_MAX,
    NOTHING,
    STEPS_MAX,
    TEXT_CHARS_MAX,
    Given,
    InvalidTemplate,
    Unresolved,
    unresolved_in,
)

TEMPLATE: dict[str, Any] = {
    "Parameters": {
        "Stage": {"Type": "String", "Default": "dev"},
        "Bare": {"Type": "String"},
        "Size": {"Type": "Number", "Default": 50},
        "Names": {"Type": "CommaDelimitedList", "Default": "a, b"},
        "Token": {"Type": "String", "NoEcho": True, "Default": "hush"},
        "Stored": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/orders/arn"},
    },
    "Mappings": {"Sizes": {"dev": {"batch": 5}, "prod": {"batch": 50}}},
    "Conditions": {
        "Prod": {"Fn::Equals": [{"Ref": "Stage"}, "prod"]},
        "Dev": {"Fn::Not": [{"Condition": "Prod"}]},
        "Any": {"Fn::Or": [{"Condition": "Prod"}, {"Condition": "Dev"}]},
        "Both": {"Fn::And": [{"Condition": "Prod"}, {"Condition": "Dev"}]},
        "Open": {"Fn::Equals": [{"Ref": "Bare"}, "x"]},
        "Loop": {"Fn::Not": [{"Condition": "Loop"}]},
    },
    "Resources": {
        "Clicks": {"Type": "AWS::Kinesis::Stream", "Properties": {"Name": {"Fn::Sub": "${Stage}-clicks"}}},
        "Mails": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "mails.fifo"}},
        "Nameless": {"Type": "AWS::SQS::Queue"},
        "Items": {"Type": "AWS::DynamoDB::Table", "Properties": {"TableName": "items"}},
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "news"}},
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "failed"}},
        "Worker": {"Type": "AWS::Lambda::Function", "Properties": {}},
        "One": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::GetAtt": "Two.QueueName"}}},
        "Two": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::GetAtt": "One.QueueName"}}},
    },
}
PLACE = Given({}, "eu-west-1", "111122223333")


def resolver(given_: Given = PLACE, **more: Any) -> Resolver:
    return Resolver({**TEMPLATE, **more}, given_)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"Ref": "Stage"}, "dev"),
        ({"Ref": "Size"}, 50),
        ({"Ref": "Names"}, ["a", "b"]),
        ({"Ref": "AWS::Region"}, "eu-west-1"),
        ({"Ref": "AWS::AccountId"}, "111122223333"),
        ({"Ref": "AWS::Partition"}, "aws"),
        ({"Ref": "AWS::URLSuffix"}, "amazonaws.com"),
        ({"Ref": "Clicks"}, "dev-clicks"),
        ({"Ref": "Topic"}, "arn:aws:sns:eu-west-1:111122223333:news"),
        ({"Ref": "Worker"}, "Worker"),
        ({"Fn::GetAtt": "Clicks.Arn"}, "arn:aws:kinesis:eu-west-1:111122223333:stream/dev-clicks"),
        ({"Fn::GetAtt": ["Mails", "Arn"]}, "arn:aws:sqs:eu-west-1:111122223333:mails.fifo"),
        ({"Fn::GetAtt": ["Mails", "QueueName"]}, "mails.fifo"),
        ({"Fn::GetAtt": "Bucket.Arn"}, "arn:aws:s3:::failed"),
        ({"Fn::GetAtt": "Worker.Arn"}, "arn:aws:lambda:eu-west-1:111122223333:function:Worker"),
        ({"Fn::Sub": "${Stage}-x-${AWS::Region}"}, "dev-x-eu-west-1"),
        ({"Fn::Sub": "${Mails.Arn}"}, "arn:aws:sqs:eu-west-1:111122223333:mails.fifo"),
        ({"Fn::Sub": ["${a}${!b}${Size}", {"a": {"Ref": "Stage"}}]}, "dev${b}50"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Stage"}, 1, True]]}, "a-dev-1-true"),
        ({"Fn::Join": ["+", {"Ref": "Names"}]}, "a+b"),
        ({"Fn::Select": ["1", {"Ref": "Names"}]}, "b"),
        ({"Fn::Select": [5, {"Fn::Split": [":", {"Fn::GetAtt": "Mails.Arn"}]}]}, "mails.fifo"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Stage"}, "batch"]}, 5),
        ({"Fn::FindInMap": ["Sizes", "none", "batch", {"DefaultValue": 7}]}, 7),
        ({"Fn::If": ["Prod", 1, 2]}, 2),
        ({"Fn::If": ["Dev", {"Ref": "Stage"}, {"Ref": "Bare"}]}, "dev"),
        ({"Fn::If": ["Any", 1, 2]}, 1),
        ({"Fn::If": ["Both", 1, 2]}, 2),
        ({"Fn::ToJsonString": {"a": [{"Ref": "Stage"}]}}, '{"a":["dev"]}'),
        ({"a": {"Ref": "AWS::NoValue"}, "b": 1}, {"b": 1}),
        ([{"Ref": "AWS::NoValue"}, 1], [1]),
        ({"Ref": "AWS::NoValue"}, NOTHING),
        ("plain ${Stage}", "plain ${Stage}"),
    ],
)
def test_what_the_template_tells_is_resolved(node: object, expected: object) -> None:
    assert resolver().value(node) == expected


@pytest.mark.parametrize(
    ("node", "written", "why"),
    [
        ({"Ref": "Bare"}, "<Bare>", "has no default; give --parameter Bare=VALUE"),
        ({"Ref": "Token"}, "<Token>", "a NoEcho parameter, whose value is not copied"),
        ({"Ref": "Stored"}, "<Stored>", "is in the Systems Manager"),
        ({"Ref": "Gone"}, "<Gone>", "no parameter or resource Gone"),
        ({"Ref": "AWS::StackName"}, "<AWS::StackName>", "--parameter AWS::StackName=VALUE"),
        ({"Ref": "Mails"}, "<Mails.>", "is not resolved here"),
        (
            {"Fn::GetAtt": "Nameless.Arn"},
            "arn:aws:sqs:eu-west-1:111122223333:<Nameless>",
            "--parameter Nameless=NAME",
        ),
        (
            {"Fn::GetAtt": "Items.StreamArn"},
            "arn:aws:dynamodb:eu-west-1:111122223333:table/items/stream/<label>",
            "--parameter Items.StreamArn=ARN",
        ),
        ({"Fn::GetAtt": "Gone.Arn"}, "<Gone.Arn>", "is not in the template"),
        ({"Fn::GetAtt": "One.Arn"}, "arn:aws:sqs:eu-west-1:111122223333:<Two.QueueName>", "refers to itself"),
        ({"Fn::ImportValue": {"Fn::Sub": "${Stage}-arn"}}, "<dev-arn>", "give --parameter dev-arn=VALUE"),
        ({"Fn::Sub": "a-${Bare}-b"}, "a-<Bare>-b", "has no default"),
        ({"Fn::If": ["Open", 1, 2]}, "<Bare>", "has no default"),
        ({"Fn::If": ["Loop", 1, 2]}, "<Conditions.Loop>", "refers to itself"),
        ({"Fn::If": ["Nowhere", 1, 2]}, "<Nowhere>", "there is no condition"),
        ({"Fn::GetAZs": ""}, "<Fn::GetAZs>", "is not resolved here"),
        ({"Fn::Transform": {"Name": "x"}}, "<Fn::Transform>", "is not resolved here"),
        ({"Fn::Select": [9, ["a"]]}, "<Fn::Select>", "that is not there"),
        ({"Fn::Join": "x"}, "<Fn::Join>", "without a text and a list"),
        ({"Fn::Split": [",", 5]}, "<Fn::Split>", "without two texts"),
        ({"Fn::FindInMap": ["Sizes", "x"]}, "<Fn::FindInMap>", "without three"),
        ({"Fn::FindInMap": ["Sizes", "x", "y"]}, "<Sizes.x.y>", "Mappings has no"),
        ("{{resolve:secretsmanager:x}}", "<{{resolve}}>", "a dynamic reference"),
        ({"Fn::Sub": "{{resolve:ssm:${Stage}}}"}, "<{{resolve}}>", "a dynamic reference"),
    ],
)
def test_what_it_does_not_tell_is_named(node: object, written: str, why: str) -> None:
    found = resolver().value(node)
    assert isinstance(found, Unresolved)
    assert found.written == written
    assert why in found.why


def test_what_the_user_gives_comes_first() -> None:
    given_ = Given(
        {
            "Stage": "prod",
            "Bare": "b",
            "Token": "secret",
            "Nameless": "n",
            "Items.StreamArn": "arn:x",
            "dev-arn": "arn:y",
            "Stored": "z",
            "AWS::StackName": "s",
        },
        "cn-north-1",
        "1",
    )
    values = resolver(given_)
    assert values.value({"Ref": "Stage"}) == "prod"
    assert values.value({"Fn::If": ["Prod", {"Ref": "Bare"}, 2]}) == "b"
    assert values.value({"Fn::GetAtt": "Nameless.Arn"}) == "arn:aws-cn:sqs:cn-north-1:1:n"
    assert values.value({"Fn::GetAtt": "Items.StreamArn"}) == "arn:x"
    assert values.value({"Fn::ImportValue": "dev-arn"}) == "arn:y"
    assert values.value({"Ref": "Stored"}) == "z"
    assert values.value({"Ref": "AWS::StackName"}) == "s"
    assert isinstance(values.value({"Ref": "Token"}), Unresolved), "a secret is not copied, whoever gives it"


def test_references_that_double_are_cut_at_the_length_of_a_text() -> None:
    queues = {
        f"Q{n}": {
            "Type": "AWS::SQS::Queue",
            "Properties": {"QueueName": {"Fn::Sub": f"${{Q{n + 1}.QueueName}}" * 2}},
        }
        for n in range(60)
    }
    queues["Q60"] = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "x"}}
    found = resolver(Resources=queues).value({"Fn::GetAtt": "Q20.QueueName"})
    assert isinstance(found, Unresolved)
    short = resolver(Resources=queues).value({"Fn::GetAtt": "Q50.QueueName"})
    assert short == "x" * 1024
    assert len(short) < TEXT_CHARS_MAX


def test_a_deep_value_is_unresolved() -> None:
    node: Any = "x"
    for _ in range(DEPTH_MAX + 10):
        node = {"Fn::Join": ["", [node]]}
    assert isinstance(resolver().value(node), Unresolved)


def test_long_chains_of_resources_and_conditions_end() -> None:
    queues = {
        f"Q{n}": {
            "Type": "AWS::SQS::Queue",
            "Properties": {"QueueName": {"Fn::GetAtt": f"Q{n + 1}.QueueName"}},
        }
        for n in range(5000)
    }
    conditions: dict[str, Any] = {f"C{n}": {"Condition": f"C{n + 1}"} for n in range(5000)}
    conditions |= {f"N{n}": {"Fn::Not": [{"Condition": f"N{n + 1}"}]} for n in range(5000)}
    values = resolver(Resources=queues, Conditions=conditions)
    assert isinstance(values.value({"Fn::GetAtt": "Q0.Arn"}), Unresolved)
    assert isinstance(values.condition("C0"), Unresolved)
    assert isinstance(values.condition("N0"), Unresolved)


def test_too_many_values_end_it() -> None:
    row = list(range(1000))
    with pytest.raises(InvalidTemplate, match="more than"):
        resolver().value([row] * (STEPS_MAX // 1000 + 1))


NAMES = st.sampled_from(
    [
        "Stage",
        "Bare",
        "Names",
        "Token",
        "Clicks",
        "Clicks.Arn",
        "One.Arn",
        "Prod",
        "Loop",
        "AWS::NoValue",
        "",
        "Sizes",
    ]
)
FUNCTIONS = st.sampled_from(
    [
        "Ref",
        "Condition",
        *(
            f"Fn::{x}"
            for x in [
                "GetAtt",
                "Sub",
                "Join",
                "Select",
                "Split",
                "FindInMap",
                "If",
                "ImportValue",
                "ToJsonString",
                "X",
            ]
        ),
    ]
)
NODES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | NAMES | st.just("${Stage}${Clicks.Arn}${One.Arn}${x"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(FUNCTIONS, inner, max_size=1)
        | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(node=NODES, condition=NODES)
def test_a_value_of_any_form_is_resolved_or_named(node: object, condition: object) -> None:
    conditions = {**TEMPLATE["Conditions"], "Drawn": condition}
    values = resolver(Conditions=conditions)
    for each in unresolved_in(values.value(node)):
        assert each.why
    assert isinstance(values.condition("Drawn"), bool | Unresolved)
    assert "hush" not in repr(values.value(node))
