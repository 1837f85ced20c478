"""Receivers of telemetry events; each module is one plug-in, found by its entry point."""
