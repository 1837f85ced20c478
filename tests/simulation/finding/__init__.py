"""Streams whose shards are found with fewer calls, in simulated worlds: listings that others asked for, and the children of shards."""
