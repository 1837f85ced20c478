"""Telemetry: the frozen events that the engine emits, the words in them, the protocol of observers, and the history that is counted from events.

What may live here: events, which carry ids, counts and durations, never payloads, the closed sets of words that become labels of metrics, and
values that are made of events alone.
"""
