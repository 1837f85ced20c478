"""Rules of stream mappings: batches, attempts, lanes, positions, windows and the order of shards.

What may live here: decisions about the records of a shard. Queues have a wing of their own; neither imports the other.
"""
