"""What operations that take long do to a stream mapping: its shards move, and batches that were given up are called again."""
