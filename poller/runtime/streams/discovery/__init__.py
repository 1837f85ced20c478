"""How the shards of a stream are found: all of them now and then, and in between those that follow on ended ones."""
