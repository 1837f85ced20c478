"""Owns the tracers: they make spans of calls of functions. OpenTelemetry is imported only when a tracer is opened."""
