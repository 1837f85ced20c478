"""Pure rules: values in, commands out; `now` and `rng` are arguments.

What may live here: decisions without a loop, clock, randomness, logging or I/O. A rule that waits exposes a
deadline; a timer that fires is one more input. A rule about one kind of source stands in its wing: `streams`, `queues`; what
workers agree on stands in `workers`, filter patterns in `filtering`.
"""
