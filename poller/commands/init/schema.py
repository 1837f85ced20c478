"""Owns `poller schema`: it prints the JSON Schema of the configuration file for the plug-ins that are installed."""

import json

from poller.commands.shared import LoadablePlugins
from poller.config.schema.document import installed, schema_document


def schema_text() -> str:
    """The schema as text with a line break at its end. Functions and stores are those of the installed plug-ins."""
    document = schema_document(LoadablePlugins(), installed("invokers"), installed("stores"))
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
