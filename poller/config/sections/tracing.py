"""Owns the settings of traces. Where spans go and which are kept, OpenTelemetry's own variables say."""

from poller.config.mapping import Flag
from poller.config.sections.section import Section


class Tracing(Section):
    """Whether calls of functions are traced."""

    enabled: Flag = False
