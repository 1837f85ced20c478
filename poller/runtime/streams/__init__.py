"""Shells of stream mappings: a mapping, its leases, its shards, their lanes and checkpoints.

What may live here: loops that wait for a shard. Queues have a wing of their own; neither imports the other.
"""
