"""Checkpoints of other consumers, to import from; each module is one plug-in, found by its entry point.

What may live here: formats in which other software stores positions.
"""
