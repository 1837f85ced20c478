"""Templates are read with CloudFormation's tags, and nothing in a file takes long or much memory."""

import json
from pathlib import Path

import pytest

from poller.config.starting.template_files import TEMPLATE_BYTES_MAX, parse_template, read_template
from poller.config.yaml_files import DEPTH_MAX
from poller.domain.errors import InvalidConfiguration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: !Ref X", {"a": {"Ref": "X"}}),
        ("a: !GetAtt X.Arn", {"a": {"Fn::GetAtt": "X.Arn"}}),
        ("a: !Sub '${X}-y'", {"a": {"Fn::Sub": "${X}-y"}}),
        ("a: !Sub ['${X}', {X: !Ref Y}]", {"a": {"Fn::Sub": ["${X}", {"X": {"Ref": "Y"}}]}}),
        ("a: !Join [':', [!Ref X, b]]", {"a": {"Fn::Join": [":", [{"Ref": "X"}, "b"]]}}),
        ("a: !Select [0, !Split [',', !ImportValue x]]", {"a": {"Fn::Select": [0, {"Fn::Split": [",", {"Fn::ImportValue": "x"}]}]}}),
        ("a: !FindInMap [A, !Ref B, c]", {"a": {"Fn::FindInMap": ["A", {"Ref": "B"}, "c"]}}),
        ("a: !If [P, 1, !Ref AWS::NoValue]", {"a": {"Fn::If": ["P", 1, {"Ref": "AWS::NoValue"}]}}),
        ("a: !Condition P", {"a": {"Condition": "P"}}),
        ("a: !Transform {Name: x, Parameters: {b: c}}", {"a": {"Fn::Transform": {"Name": "x", "Parameters": {"b": "c"}}}}),
        ("a: {Fn::Sub: x}", {"a": {"Fn::Sub": "x"}}),
        ("AWSTemplateFormatVersion: 2010-09-09\n111122223333: {b: 012}", {"AWSTemplateFormatVersion": "2010-09-09", "111122223333": {"b": "012"}}),
        ("b: &x {c: 1}\na: *x", {"a": {"c": 1}, "b": {"c": 1}}),
        ('{"a": {"Ref": "X"}, "b": "]]]{{\\""}', {"a": {"Ref": "X"}, "b": ']]]{{"'}),
    ],
)  # fmt: skip
def test_short_and_long_forms_are_read_alike(text: str, expected: object) -> None:
    assert parse_template(text, name="t") == expected


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(8)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "aliases included"),
        ("a: &a [*a]", "contains itself"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper"),
        ("a: " + "!Sub [" * 100 + "]" * 100, "nested deeper"),
        ('{"a": ' + "[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1) + "}", "nested deeper"),
        ('{"a": ' * 100_000, "nested deeper"),
        ('{"a": "' + '\\"' * 100_000, "is not JSON"),
        ('{"a": 1,}', "is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"a": ' + "9" * 400 + "}", "a number is too large"),
        ('{"a": "\\ud800"}', "half a surrogate"),
        ("a: !!python/object:os.system x", "is not supported"),
        ("a: !<tag:yaml.org,2002:python/name:os.system> x", "is not supported"),
        ("a: !a!b x", "undefined tag handle"),
        ("a: 1\na: 2", "there twice"),
        ("[1, 2]", "is no template"),
        ("just text", "is no template"),
        ("", "is no template"),
        ("null: 1", "a name in it is not a text"),
        ("a: {true: 1}", "a name in it is not a text"),
        ("a: \x00", "not YAML"),
        ("a: 'open", "t:"),
    ],
    ids=range(22),
)
def test_a_hostile_template_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse_template(text, name="t")
    (line,) = caught.value.problems
    assert line.startswith("t:")
    assert problem in line
    assert line.isprintable()


def test_a_file_that_is_no_template_is_refused(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    large.write_bytes(b"#" * (TEMPLATE_BYTES_MAX + 1))
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (large, binary, tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(InvalidConfiguration) as caught:
            read_template(path)
        assert str(path) in caught.value.problems[0]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("serverless.ts", "cloudformation-template"), ("app.py", "cdk synth"), ("main.tf", "export --from-aws")],
)
def test_a_program_that_makes_a_template_is_refused_with_what_to_give(name: str, remedy: str) -> None:
    with pytest.raises(InvalidConfiguration, match=remedy):
        read_template(Path(name))


def test_json_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"Resources": {f"R{n}": {"Type": "x"} for n in range(100_000)}}))
    assert len(read_template(path)["Resources"]) == 100_000
