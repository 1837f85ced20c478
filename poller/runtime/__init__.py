"""Asyncio shells: wait, ask a rule, carry out its commands.

What may live here: loops that own a scope (daemon, mapping, shard, lane, queue) and nothing that decides.
"""
