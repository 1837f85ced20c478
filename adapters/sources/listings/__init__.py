"""Listings of shards, which the mappings of a daemon share. No module here knows a mapping."""
