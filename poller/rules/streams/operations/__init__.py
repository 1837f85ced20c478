"""Rules of what operators do to a shard: retry, reset, skip and pause.

What may live here: decisions about an operator's action on the lanes and batches of one shard.
"""
