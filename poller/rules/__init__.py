"""Pure rules: values in, commands out; `now` and `rng` are arguments.

What may live here: decisions without a loop, clock, randomness, logging or I/O. A rule that waits exposes a deadline, and a
timer that fires is one more input. Rules about one kind of source are in `streams` and `queues`, rules that all workers follow
are in `workers`, and filter patterns are in `filtering`.
"""
