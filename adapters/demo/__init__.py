"""The demo: a small shop on a local emulator of AWS, whose daemon is checked against what its functions received.

What may live here: the demo's resources, its load, its functions and its report. A daemon imports nothing of it, unless its
configuration names the demo's functions.
"""
