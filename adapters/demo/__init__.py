"""The demo: a small shop on a local AWS emulator, whose daemon is checked against what its functions really saw.

Here live the demo's resources, its load, its functions and its account. Nothing of it is imported by a daemon, unless its
configuration names the demo's functions.
"""
