"""What a template becomes: the shapes are those of public templates of each tool, the names are made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from poller.config.starting.from_template import MEMBERS, CarriedTemplate, from_template
from poller.config.starting.template_files import parse_template
from poller.config.starting.written import written
from poller.config.yaml_files import parse_document
from poller.domain.errors import InvalidConfiguration
from poller.rules.templates.found import ELSEWHERE
from poller.rules.templates.serverless import QUEUE, STREAM
from poller.rules.templates.values import Given
from tests.config.schema.validating import refused, seen

PLACE = Given(
    {"Items.StreamArn": "arn:aws:dynamodb:eu-west-1:111122223333:table/items/stream/2026-01-01T00:00:00.000"},
    "eu-west-1",
    "111122223333",
)


def carried(text: str, given: Given = PLACE, place: str = "template.yaml") -> CarriedTemplate:
    return from_template(parse_template(text, name=place), given, place=Path(place), store="memory://")


def document(found: CarriedTemplate) -> dict[str, Any]:
    return parse_document(written(found.draft), name="written")


SAM = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: {Type: String, Default: dev}
  DbPassword: {Type: String, NoEcho: true, Default: hush-hush}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
Globals:
  Function:
    Runtime: python3.13
    Timeout: 20
    MemorySize: 256
    Environment: {Variables: {DB_PASSWORD: !Ref DbPassword, TABLE: plain-value}}
Resources:
  OrdersFunction:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: !Sub '${Stage}-orders'
      CodeUri: src/orders/
      Handler: app.handler
      ReservedConcurrentExecutions: 5
      Events:
        Clicks:
          Type: Kinesis
          Properties:
            Stream: !GetAtt ClickStream.Arn
            StartingPosition: AT_TIMESTAMP
            StartingPositionTimestamp: 1767225600
            BatchSize: !If [IsProd, 500, 50]
            MaximumBatchingWindowInSeconds: 5
            ParallelizationFactor: 2
            MaximumRetryAttempts: 3
            MaximumRecordAgeInSeconds: 3600
            BisectBatchOnFunctionError: true
            FunctionResponseTypes: [ReportBatchItemFailures]
            DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Failed.Arn}}
            FilterCriteria: {Filters: [{Pattern: '{"data": {"kind": ["order"]}}'}]}
            Enabled: 'true'
        Items:
          Type: DynamoDB
          Properties: {Stream: !GetAtt Items.StreamArn, StartingPosition: TRIM_HORIZON, TumblingWindowInSeconds: 60}
        Web: {Type: Api, Properties: {Path: /, Method: get}}
        Kafka: {Type: MSK, Properties: {Stream: x}}
  MailsFunction:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: nodejs22.x
      CodeUri: ./mails
      Handler: index.handler
      AutoPublishAlias: live
      Events:
        Mails:
          Type: SQS
          Properties: {Queue: !GetAtt Mails.Arn, BatchSize: 10, ScalingConfig: {MaximumConcurrency: 2}}
  ClickStream: {Type: AWS::Kinesis::Stream, Properties: {Name: !Join ['-', [!Ref Stage, clicks]]}}
  Items: {Type: AWS::DynamoDB::Table, Properties: {TableName: items}}
  Failed: {Type: AWS::SQS::Queue, Properties: {QueueName: failed}}
  Mails: {Type: AWS::SQS::Queue, Properties: {QueueName: mails.fifo, FifoQueue: true}}
"""


def test_events_of_sam_become_mappings(tmp_path: Path) -> None:
    found = carried(SAM)
    assert found.left == ()
    assert found.skipped == (
        "Resources.OrdersFunction.Events.Kafka: a mapping of MSK; only Kinesis, DynamoDB Streams and SQS are read",
    )
    configuration = document(found)
    assert configuration["functions"] == {
        "dev-orders": {
            "invoker": "python",
            "handler": "app.handler",
            "code": "src/orders",
            "timeout_s": 20,
            "memory_mb": 256,
            "max_concurrency": 5,
        },
        "MailsFunction": {
            "invoker": "process",
            "command": ["npx", "aws-lambda-ric", "index.handler"],
            "cwd": "mails",
            "timeout_s": 20,
            "memory_mb": 256,
        },
    }
    assert configuration["mappings"] == [
        {
            "FunctionName": "dev-orders",
            "EventSourceArn": "arn:aws:kinesis:eu-west-1:111122223333:stream/dev-clicks",
            "StartingPosition": "AT_TIMESTAMP",
            "StartingPositionTimestamp": 1767225600,
            "BatchSize": 50,
            "MaximumBatchingWindowInSeconds": 5,
            "ParallelizationFactor": 2,
            "MaximumRetryAttempts": 3,
            "MaximumRecordAgeInSeconds": 3600,
            "BisectBatchOnFunctionError": True,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:eu-west-1:111122223333:failed"}},
            "FilterCriteria": {"Filters": [{"Pattern": '{"data": {"kind": ["order"]}}'}]},
            "Enabled": True,
        },
        {
            "FunctionName": "dev-orders",
            "EventSourceArn": PLACE.parameters["Items.StreamArn"],
            "StartingPosition": "TRIM_HORIZON",
            "TumblingWindowInSeconds": 60,
        },
        {
            "FunctionName": "MailsFunction:live",
            "EventSourceArn": "arn:aws:sqs:eu-west-1:111122223333:mails.fifo",
            "BatchSize": 10,
            "ScalingConfig": {"MaximumConcurrency": 2},
        },
    ]
    assert refused(configuration, tmp_path / "poller.yaml") == []
    assert seen(configuration) == []


def test_secrets_are_named_and_not_copied() -> None:
    text = written(carried(SAM).draft)
    assert "hush-hush" not in text
    assert "plain-value" not in text
    assert "not copied: DB_PASSWORD, TABLE" in text


def test_what_is_missing_is_a_comment_at_its_member_and_a_line_in_the_list() -> None:
    found = carried(SAM, Given({}, "eu-west-1"))
    text = written(found.draft)
    assert "    # EventSourceArn: arn:aws:sqs:eu-west-1:<AWS::AccountId>:mails.fifo\n" in text
    assert "    # ^ not carried over: AWS::AccountId is not known; give --account ACCOUNT\n" in text
    assert [line.split(": ")[0] for line in found.left] == [
        "Resources.OrdersFunction.Events.Clicks.EventSourceArn",
        "Resources.OrdersFunction.Events.Clicks.DestinationConfig",
        "Resources.OrdersFunction.Events.Items.EventSourceArn",
        "Resources.MailsFunction.Events.Mails.EventSourceArn",
    ]
    assert parse_document(text, name="x")["mappings"][0]["BatchSize"] == 50


CLOUDFORMATION = """
Parameters: {Size: {Type: Number, Default: 7}}
Conditions: {Never: !Equals [a, b]}
Resources:
  Worker:
    Type: AWS::Lambda::Function
    Properties:
      FunctionName: worker
      Runtime: provided.al2023
      Handler: bootstrap
      Code: {S3Bucket: b, S3Key: k}
  Live: {Type: AWS::Lambda::Alias, Properties: {FunctionName: !Ref Worker, Name: live, FunctionVersion: '1'}}
  Image: {Type: AWS::Lambda::Function, Properties: {FunctionName: image, PackageType: Image, Code: {ImageUri: x}}}
  Queue: {Type: AWS::SQS::Queue, Properties: {QueueName: jobs}}
  ByAlias:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {FunctionName: !Ref Live, EventSourceArn: !GetAtt Queue.Arn, BatchSize: !Ref Size, Colour: red}
  ByArn:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !GetAtt Image.Arn
      EventSourceArn: !Sub 'arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:other'
      BatchSize: 5000
  Imported:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {FunctionName: elsewhere, EventSourceArn: !ImportValue shared-stream, StartingPosition: LATEST}
  Off:
    Type: AWS::Lambda::EventSourceMapping
    Condition: Never
    Properties: {FunctionName: worker, EventSourceArn: !GetAtt Queue.Arn}
  Kafka:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {FunctionName: worker, SelfManagedEventSource: {}}
  Fn::ForEach::Many: [Name, [a, b], {}]
"""


def test_resources_of_cloudformation_become_mappings() -> None:
    given = Given(
        {"shared-stream": "arn:aws:kinesis:eu-west-1:111122223333:stream/shared"}, "eu-west-1", "111122223333"
    )
    found = carried(CLOUDFORMATION, given)
    configuration = document(found)
    assert configuration["mappings"] == [
        {
            "FunctionName": "worker:live",
            "EventSourceArn": "arn:aws:sqs:eu-west-1:111122223333:jobs",
            "BatchSize": 7,
        },
        {"FunctionName": "image", "EventSourceArn": "arn:aws:sqs:eu-west-1:111122223333:other"},
        {
            "FunctionName": "elsewhere",
            "EventSourceArn": given.parameters["shared-stream"],
            "StartingPosition": "LATEST",
        },
    ]
    assert configuration["functions"] == {
        "worker": {"invoker": "process", "command": ["./bootstrap"], "cwd": ".", "timeout_s": 3},
        "image": {"invoker": "lambda"},
    }
    assert found.left[:2] == (
        "Resources.Fn::ForEach::Many: ForEach is not expanded here; write out the resources that it makes",
        "Resources.ByAlias.Colour: no member of a mapping here",
    )
    assert found.left[2].startswith("Resources.ByArn.BatchSize: ")
    assert "add MaximumBatchingWindowInSeconds" in found.left[2]
    assert found.skipped == (
        "Resources.Off: its condition Never does not hold",
        "Resources.Kafka: has no EventSourceArn; self-managed Kafka is not read here",
    )


CDK = json.dumps(
    {
        "Resources": {
            "OrdersFn1A2B3C4D": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Code": {
                        "S3Bucket": {"Fn::Sub": "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"},
                        "S3Key": "f.zip",
                    },
                    "Handler": "index.handler",
                    "Runtime": "python3.13",
                },
                "Metadata": {
                    "aws:cdk:path": "Shop/OrdersFn/Resource",
                    "aws:asset:path": "asset.abc",
                    "aws:asset:property": "Code",
                },
            },
            "OrdersFnSqsEventSource5E6F": {
                "Type": "AWS::Lambda::EventSourceMapping",
                "Properties": {
                    "EventSourceArn": {"Fn::GetAtt": ["Queue7A8B", "Arn"]},
                    "FunctionName": {"Ref": "OrdersFn1A2B3C4D"},
                    "BatchSize": 5,
                },
            },
            "Queue7A8B": {"Type": "AWS::SQS::Queue", "UpdateReplacePolicy": "Delete"},
            "CDKMetadata": {"Type": "AWS::CDK::Metadata", "Properties": {"Analytics": "v2:deflate64:x"}},
        },
        "Parameters": {
            "BootstrapVersion": {
                "Type": "AWS::SSM::Parameter::Value<String>",
                "Default": "/cdk-bootstrap/version",
            }
        },
        "Rules": {"CheckBootstrapVersion": {"Assertions": []}},
    }
)


def test_what_cdk_synthesises_is_read() -> None:
    place = "cdk.out/Shop.template.json"
    found = carried(CDK, place=place)
    assert found.left == (
        "Resources.OrdersFnSqsEventSource5E6F.EventSourceArn: AWS makes the name of Queue7A8B, which has no QueueName; "
        "give --parameter Queue7A8B=NAME (arn:aws:sqs:eu-west-1:111122223333:<Queue7A8B>)",
    )
    whole = carried(CDK, Given({"Queue7A8B": "orders"}, "eu-west-1", "111122223333"), place)
    assert whole.left == ()
    configuration = document(whole)
    assert configuration["mappings"][0]["EventSourceArn"] == "arn:aws:sqs:eu-west-1:111122223333:orders"
    assert configuration["functions"] == {
        "OrdersFn1A2B3C4D": {
            "invoker": "python",
            "handler": "index.handler",
            "code": "cdk.out/asset.abc",
            "timeout_s": 3,
        }
    }


SERVERLESS = """
service: shop
provider:
  name: aws
  runtime: python3.13
  region: eu-central-1
  stage: ${opt:stage, 'dev'}
  timeout: 10
  environment: {API_KEY: hush-hush}
custom: {batch: {dev: 25}}
functions:
  orders:
    handler: src/orders.handle
    memorySize: 512
    environment: {MODE: x}
    events:
      - stream:
          type: kinesis
          arn: !GetAtt Clicks.Arn
          batchSize: ${self:custom.batch.${self:provider.stage}}
          batchWindow: 5
          startingPosition: LATEST
          maximumRetryAttempts: 3
          maximumRecordAgeInSeconds: 3600
          bisectBatchOnFunctionError: true
          parallelizationFactor: 2
          functionResponseType: ReportBatchItemFailures
          filterPatterns: [{data: {kind: [order]}}]
          destinations: {onFailure: {type: sqs, arn: !GetAtt Failed.Arn}}
          consumer: true
          enabled: false
      - stream: arn:aws:dynamodb:eu-central-1:111122223333:table/items/stream/2026-01-01T00:00:00.000
      - sqs: {arn: !GetAtt Mails.Arn, batchSize: 100, maximumBatchingWindow: 1, maximumConcurrency: 4}
      - sqs: ${env:QUEUE}
      - http: GET /
      - msk: {arn: x}
  job-runner: {handler: job.run, name: runner, runtime: java21, events: [{sqs: {arn: 'arn:aws:sqs:eu-central-1:111122223333:jobs'}}]}
resources:
  Resources:
    Clicks: {Type: AWS::Kinesis::Stream, Properties: {Name: 'clicks-${self:provider.stage}'}}
    Failed: {Type: AWS::SQS::Queue, Properties: {QueueName: failed}}
    Mails: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub 'mails-${AWS::Region}'}}
    Extra:
      Type: AWS::Lambda::EventSourceMapping
      Properties: {FunctionName: !GetAtt JobDashrunnerLambdaFunction.Arn, EventSourceArn: !GetAtt Failed.Arn}
"""


def test_events_of_serverless_framework_become_mappings() -> None:
    found = carried(SERVERLESS, Given({}, "", "111122223333"), "serverless.yml")
    configuration = document(found)
    assert configuration["region"] == "eu-central-1"
    extra, clicks, items, mails, open_one, jobs = configuration["mappings"]
    assert extra == {
        "FunctionName": "runner",
        "EventSourceArn": "arn:aws:sqs:eu-central-1:111122223333:failed",
    }
    assert clicks == {
        "FunctionName": "shop-dev-orders",
        "EventSourceArn": "arn:aws:kinesis:eu-central-1:111122223333:stream/clicks-dev",
        "BatchSize": 25,
        "StartingPosition": "LATEST",
        "MaximumBatchingWindowInSeconds": 5,
        "MaximumRetryAttempts": 3,
        "MaximumRecordAgeInSeconds": 3600,
        "BisectBatchOnFunctionError": True,
        "ParallelizationFactor": 2,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "FilterCriteria": {"Filters": [{"Pattern": '{"data":{"kind":["order"]}}'}]},
        "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:eu-central-1:111122223333:failed"}},
        "Enabled": False,
    }
    assert items["BatchSize"] == 10
    assert items["StartingPosition"] == "TRIM_HORIZON"
    assert mails["ScalingConfig"] == {"MaximumConcurrency": 4}
    assert mails["EventSourceArn"].endswith(":mails-eu-central-1")
    assert open_one == {"FunctionName": "shop-dev-orders"}
    assert jobs["FunctionName"] == "runner"
    assert configuration["functions"]["shop-dev-orders"] == {
        "invoker": "python",
        "handler": "src/orders.handle",
        "timeout_s": 10,
        "memory_mb": 512,
    }
    assert configuration["functions"]["runner"] == {"invoker": "lambda"}
    assert (
        "functions.orders.events[0].consumer (enhanced fan-out; the stream is polled, which loses nothing: write source: {fan_out: true}, or a consumer's ARN): no member of a mapping here"
        in found.left
    )
    assert any(
        line.startswith("functions.orders.events[3].EventSourceArn: is a variable of the environment")
        for line in found.left
    )
    assert found.skipped == (
        "functions.orders.events[5]: a mapping of msk; only Kinesis, DynamoDB Streams and SQS are read",
    )
    assert "hush-hush" not in written(found.draft)
    assert "not copied: API_KEY, MODE" in written(found.draft)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1", "has no Resources"),
        ("Resources: {}", "nothing to carry over"),
        (
            "Resources: {A: {Type: AWS::Serverless::Function, Properties: {Events: {B: {Type: MQ}}}}}",
            "a mapping of MQ",
        ),
        ("Resources: {A: 5, B: {Type: AWS::Serverless::Function, Properties: x}}", "nothing to carry over"),
        ("service: x\nprovider: {name: aws}\nfunctions: [1, {a: 5}]", "nothing to carry over"),
        ("service: x\nprovider: {name: aws}\nfunctions: ${file(f.yml)}", r"functions: .* is not read"),
        (
            "service: x\nprovider: {name: aws}\nfunctions: ['${file(f.yml):a}']",
            r"functions\[0\]: .* is not read",
        ),
        (
            "service: x\nprovider: {name: aws}\nresources: {Resources: '${file(r.yml)}'}",
            r"resources.Resources: .* is not read",
        ),
        ("Resources: {A: {Type: AWS::CloudFormation::Stack}}", "Resources.A: a stack of its own"),
    ],
)
def test_a_template_without_mappings_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidConfiguration, match=problem):
        carried(text)


@pytest.mark.parametrize(
    "value", [None, 5, "x", [], [1], {}, {"Ref": ["x"]}, {"Fn::If": "x"}, {"a": {"Ref": "b"}}, True]
)
@pytest.mark.parametrize(
    "name",
    ["FunctionName", "EventSourceArn", "BatchSize", "DestinationConfig", "FilterCriteria", "Enabled", "Tags"],
)
def test_a_member_of_any_form_is_carried_over_or_marked(name: str, value: object, tmp_path: Path) -> None:
    given = {"FunctionName": "a", "EventSourceArn": "arn:aws:sqs:eu-west-1:111122223333:jobs", name: value}
    found = carried(
        json.dumps({"Resources": {"M": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": given}}})
    )
    if not found.left and value is not None:
        assert refused(document(found), tmp_path / "poller.yaml") == []


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            {"Runtime": "python3.13", "Handler": "a/b.c", "CodeUri": "."},
            {"invoker": "python", "handler": "a/b.c", "timeout_s": 3},
        ),
        (
            {"Runtime": "python3.13", "Handler": "a.b", "CodeUri": "../up"},
            {"invoker": "python", "handler": "a.b", "code": "../up", "timeout_s": 3},
        ),
        (
            {"Runtime": "python3.13", "Handler": "a.b", "CodeUri": "s3://x/y"},
            {"invoker": "python", "handler": "a.b", "timeout_s": 3},
        ),
        (
            {"Runtime": "python3.13", "Handler": "a.b", "Timeout": "30"},
            {"invoker": "python", "handler": "a.b", "timeout_s": 30},
        ),
        ({"Runtime": "python3.13", "Handler": "a.b", "Timeout": -1}, {"invoker": "python", "handler": "a.b"}),
        (
            {"Runtime": "python3.13", "Handler": "a.b", "CodeUri": "x/a.zip"},
            {"invoker": "python", "handler": "a.b", "timeout_s": 3},
        ),
        ({"Runtime": "python3.13"}, {"invoker": "lambda"}),
        ({"Runtime": "dotnet8", "Handler": "A::B"}, {"invoker": "lambda"}),
        ({"PackageType": "Image", "ImageUri": "x"}, {"invoker": "lambda"}),
        ({"Runtime": {"Ref": "Gone"}, "Handler": "a.b"}, {"invoker": "lambda"}),
    ],
)
def test_a_function_is_called_by_what_its_runtime_allows(
    function: dict[str, Any], expected: dict[str, Any]
) -> None:
    event = {"Type": "SQS", "Properties": {"Queue": "arn:aws:sqs:eu-west-1:111122223333:jobs"}}
    resource = {
        "Type": "AWS::Serverless::Function",
        "Properties": {"FunctionName": "f", "Events": {"E": event}, **function},
    }
    assert document(carried(json.dumps({"Resources": {"F": resource}})))["functions"] == {"f": expected}


@pytest.mark.parametrize("usual", [False, True])
@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_what_is_not_carried_over_of_a_function_is_named_with_what_does_it_here(
    name: str, usual: bool
) -> None:
    event = {"Type": "SQS", "Properties": {"Queue": "arn:aws:sqs:eu-west-1:111122223333:jobs"}}
    given: dict[str, Any] = {
        "FunctionName": "f",
        "Runtime": "python3.13",
        "Handler": "a.b",
        "Events": {"E": event},
    }
    template: dict[str, Any] = {"Globals": {"Function": {name: "x"}}} if usual else {}
    properties = given if usual else given | {name: {"Any": "thing"}}
    template["Resources"] = {"F": {"Type": "AWS::Serverless::Function", "Properties": properties}}
    text = written(carried(json.dumps(template)).draft)
    assert f"# {name} is not carried over: {ELSEWHERE[name]}" in text
    assert text.count("is not carried over") == 1


@pytest.mark.parametrize(
    ("written_number", "read"),
    [
        ("20", 20),
        ('"20"', 20),
        ("20.0", 20),
        ("1.5", None),
        ("-3", None),
        ("0", None),
        ("9" * 15, None),
        ("9" * 100, None),
        (f'"{"9" * 5000}"', None),
        ("1e999", None),
        ("NaN", None),
        ('"\u00b2"', None),
        ('"\u0967"', None),
        ("true", None),
        ("[1]", None),
    ],
    ids=str,
)
def test_a_number_of_a_template_is_read_or_left_out(written_number: str, read: int | None) -> None:
    events = {"Mails": {"Type": "SQS", "Properties": {"Queue": "arn:aws:sqs:eu-west-1:111122223333:mails"}}}
    properties = {"Runtime": "python3.13", "Handler": "a.b", "Timeout": "HERE", "Events": events}
    function = {"Type": "AWS::Serverless::Function", "Properties": properties}
    text = json.dumps({"Resources": {"Mails": function}}).replace('"HERE"', written_number)
    assert document(carried(text))["functions"]["Mails"].get("timeout_s") == read


def test_every_member_that_serverless_framework_has_is_one_of_a_mapping() -> None:
    assert {*STREAM.values(), *QUEUE.values()} <= MEMBERS


@pytest.mark.parametrize("name", ["functions", "resources"])
def test_a_part_that_is_in_another_file_is_named(name: str) -> None:
    """Whatever holds functions, events, resources or members of a mapping, at any depth: nothing is left out without a line."""
    for path in _paths(parse_template(SERVERLESS, name="x")[name], (name,)):
        document = parse_template(SERVERLESS, name="x")
        holder: Any = document
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = "${file(more.yml):it}"
        try:
            found = from_template(document, PLACE, place=Path("serverless.yml"), store="memory://")
        except InvalidConfiguration as error:
            lines = tuple(error.problems)
        else:
            lines = (*found.left, *(line for line in written(found.draft).splitlines() if "#" in line))
        assert any("file(more.yml):it" in line for line in lines), path


IRRELEVANT = ("http", "msk", "type", "consumer", "environment", "Type", "memorySize", "reservedConcurrency")
"""What is no part of a mapping, or of which only the name is carried over."""


def _paths(node: object, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    if path[-1] in IRRELEVANT or (isinstance(path[-1], str) and path[-1].startswith("Fn::")):
        return []
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, each in inner for found in _paths(each, (*path, key)))]


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ("!If [IsProd, {}, {}]", "Resources.F.Events: is no table of events"),
        ("{Fn::Transform: {Name: AWS::Include}}", "Resources.F.Events: is no table of events"),
        ("[{Type: SQS}]", "Resources.F.Events: is no table of events"),
        (
            "{E: !If [IsProd, {Type: SQS}, !Ref AWS::NoValue]}",
            "Resources.F.Events.E: its type is not written",
        ),
        ("{E: {Type: !Ref Kind}}", "Resources.F.Events.E: its type is not written"),
    ],
)
def test_events_of_sam_that_are_not_written_out_are_named(events: str, line: str) -> None:
    function = f"{{Type: AWS::Serverless::Function, Properties: {{Events: {events}}}}}"
    with pytest.raises(InvalidConfiguration, match=f"nothing to carry over: {line}"):
        carried(f"Resources: {{F: {function}}}")


def test_a_function_on_lambda_needs_its_name() -> None:
    events = {"Mails": {"Type": "SQS", "Properties": {"Queue": "arn:aws:sqs:eu-west-1:111122223333:mails"}}}
    function = {"Type": "AWS::Serverless::Function", "Properties": {"PackageType": "Image", "Events": events}}
    text = json.dumps({"Resources": {"Mails": function}})
    found = carried(text)
    assert found.left == (
        "functions.Mails: AWS makes its name, by which it is called there; give --parameter Mails=NAME (aws lambda list-functions)",
    )
    named = carried(text, Given({"Mails": "shop-Mails-1A2B"}, "eu-west-1", "111122223333"))
    assert named.left == ()
    assert document(named)["functions"] == {"shop-Mails-1A2B": {"invoker": "lambda"}}
    assert "logical id" not in written(named.draft)
