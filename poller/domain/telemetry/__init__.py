"""Telemetry: the frozen events that the engine emits, the words in them, and the protocol of observers.

What may live here: events, which carry ids, counts and durations, never payloads, and the closed sets of words that become labels of metrics.
"""
