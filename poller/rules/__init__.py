"""Pure rules: values in, commands out; `now` and `rng` are arguments.

What may live here: decisions without a loop, clock, randomness, logging or I/O. A rule that waits exposes a
deadline; a timer that fires is one more input.
"""
