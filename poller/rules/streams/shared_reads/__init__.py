"""How several mappings of one stream share what is read of a shard."""
