"""Asyncio shells: wait, ask a rule, carry out its commands.

What may live here: the daemon, and what all of its mappings use: stopping, watched tasks, invocations. Loops that
own a scope stand in their wing: `mappings`, `streams`, `queues`, `workers`. Nothing here decides.
"""
