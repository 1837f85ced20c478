"""Peeking at the records of a shard.

What may live here: opening a mapping's source for a look, reading a few pages of it, and making the answer of rules.
"""
