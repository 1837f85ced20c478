"""How the readers of shards keep within the daemon's memory. What may live here: the account of a shard, and sizes of its pages."""
