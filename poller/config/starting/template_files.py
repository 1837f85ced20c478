"""Owns how a template is read: YAML with CloudFormation's tags, or JSON, with limits on size, nesting and aliases.

A tag becomes the long form of its function: `!GetAtt Orders.Arn` is `{"Fn::GetAtt": "Orders.Arn"}`. Other tags are refused.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import Node

from poller.config.yaml_files import DEPTH_MAX, StrictLoader, refused_tag, single_document
from poller.config_errors.error_messages import printable
from poller.domain.errors import InvalidConfiguration
from poller.domain.untrusted.numbers import bounded_json_whole
from poller.rules.templates.serverless import PACKAGED
from poller.start_folder import from_start_folder

TEMPLATE_BYTES_MAX = 4 * 1024 * 1024
"""CloudFormation takes 1 MB."""
TEMPLATE_NODES_MAX = 200_000
_PROGRAMS = frozenset({".ts", ".js", ".mjs", ".cjs", ".mts", ".cts", ".py", ".java", ".cs", ".go"})
_TAG = re.compile(r"![A-Za-z][A-Za-z0-9:]{0,63}")
_ALONE = frozenset({"!Ref", "!Condition"})
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class _TemplateLoader(StrictLoader):
    """A strict loader that takes CloudFormation's short forms."""

    def check_tag(self, tag: str | None, mark: yaml.Mark) -> None:
        """Refuses all tags but those that may be functions."""
        if tag is None or not _TAG.fullmatch(tag):
            super().check_tag(tag, mark)


def _function(loader: _TemplateLoader, suffix: str, node: Node) -> dict[str, Any]:
    tag = f"!{suffix}"
    if not _TAG.fullmatch(tag):
        raise refused_tag(tag, node.start_mark)
    value: object
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {suffix if tag in _ALONE else f"Fn::{suffix}": value}


_TemplateLoader.add_multi_constructor("!", _function)


def read_template(path: Path) -> dict[str, Any]:
    """The template in a file. Raises InvalidConfiguration with one line."""
    _refuse_program(path)
    try:
        with from_start_folder(path).open("rb") as file:
            content = file.read(TEMPLATE_BYTES_MAX + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InvalidConfiguration(
            [f"{path}: cannot be read: {error.strerror}; give the path of a template"]
        ) from None
    except ValueError:
        raise InvalidConfiguration([f"{path}: is not UTF-8; give a template in YAML or JSON"]) from None
    if len(content) > TEMPLATE_BYTES_MAX:
        raise InvalidConfiguration([f"{path}: larger than {TEMPLATE_BYTES_MAX} bytes; is it a template?"])
    return parse_template(text, name=str(path))


def _refuse_program(path: Path) -> None:
    """Refuses files that make a template and are none. Raises InvalidConfiguration."""
    if path.suffix.lower() in _PROGRAMS:
        raise InvalidConfiguration(
            [
                f"{path}: is a program, no template; give what it writes: "
                f"`cdk synth` writes cdk.out/STACK.template.json, `serverless package` writes {PACKAGED}"
            ]
        )
    if path.suffix.lower() == ".tf":
        raise InvalidConfiguration(
            [
                f"{path}: Terraform's files are not read; poller mappings export --from-aws takes the mappings from AWS"
            ]
        )


def parse_template(text: str, *, name: str) -> dict[str, Any]:
    """The template in a text. Raises InvalidConfiguration with one line that begins with `name`."""
    if text.lstrip()[:1] == "{":
        document = _json(text, name)
    else:
        document = single_document(text, _TemplateLoader, name=name, nodes_max=TEMPLATE_NODES_MAX)
    if not isinstance(document, dict):
        raise InvalidConfiguration(
            [f"{name}: is no template; give one of SAM, CloudFormation, CDK or Serverless Framework"]
        )
    return _texts(document, name)


def _json(text: str, name: str) -> object:
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if depth > DEPTH_MAX:
            raise InvalidConfiguration([f"{name}: nested deeper than {DEPTH_MAX} levels; flatten it"])
    try:
        return json.loads(text, parse_int=bounded_json_whole)
    except ValueError as error:
        raise InvalidConfiguration(
            [printable(f"{name}: is not JSON: {error}; give a template in YAML or JSON")]
        ) from None


def _texts(document: dict[Any, Any], name: str) -> dict[str, Any]:
    """The document, if all names in it are texts or numbers; numbers become texts, as AWS reads them."""
    left: list[Any] = [document]
    while left:
        node = left.pop()
        if isinstance(node, str) and any("\ud800" <= char <= "\udfff" for char in node):
            raise InvalidConfiguration(
                [f"{name}: half a surrogate pair is no text; write the character itself"]
            )
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            for key in [each for each in node if not isinstance(each, str)]:
                if isinstance(key, bool) or not isinstance(key, int | float):
                    raise InvalidConfiguration([f"{name}: a name in it is not a text; put it in quotes"])
                node[str(key)] = node.pop(key)
            left += [*node, *node.values()]
    return document
