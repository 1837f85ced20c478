"""Pacers: they space calls of functions in real time."""
