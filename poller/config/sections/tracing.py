"""Owns the settings of traces. Where spans go and which are kept, OpenTelemetry's own variables say."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from poller.config.mapping import Flag
from poller.config.plugin_specs import PluginSpec
from poller.config.sections.section import Section


class Tracing(Section):
    """Whether calls of functions are traced."""

    enabled: Flag = False


def tracers(document: Mapping[str, Any]) -> list[PluginSpec]:
    """The tracer that a daemon with this document opens, if it asks for one as it should."""
    try:
        asked = Tracing.model_validate(document.get("tracing") or {}).enabled
    except ValidationError:
        return []
    return [PluginSpec("tracers", "otel")] if asked else []
