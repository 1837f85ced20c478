"""Owns the base of all telemetry events."""

import msgspec


class TelemetryEvent(msgspec.Struct, frozen=True, gc=False):
    """One event. Each batch emits several, and a dataclass would cost four times as much as this struct."""
