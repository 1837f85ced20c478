"""Both judges of a configuration: the JSON Schema, and the loader with its plug-ins."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from poller.commands.shared import LoadablePlugins
from poller.config.loader import examine
from poller.config.schema.document import installed, schema_document

REGISTRY = LoadablePlugins()


@cache
def document() -> dict[str, Any]:
    """The schema of the built-in plug-ins."""
    return schema_document(REGISTRY, installed("invokers"), installed("stores"))


@cache
def _validator() -> Any:
    return jsonschema_rs.validator_for(document())


def seen(configuration: object) -> list[str]:
    """What the schema says against a configuration: the path of each error, and its text."""
    return [
        f"{'.'.join(map(str, each.instance_path))}: {each.message}"
        for each in _validator().iter_errors(configuration)
    ]


def refused(configuration: object, file: Path) -> list[str]:
    """What the loader says against it, without what is missing on this machine."""
    file.write_text(yaml.safe_dump(configuration, allow_unicode=True))
    return examine(file, {}, REGISTRY).problems
