"""Asyncio shells: they wait, ask a rule what to do, and carry out its commands.

What may live here: the daemon, and what all of its mappings use: stopping, watched tasks, invocations. Loops that own a scope
are in `mappings`, `streams`, `queues` and `workers`. Decisions are made in `poller.rules`.
"""
