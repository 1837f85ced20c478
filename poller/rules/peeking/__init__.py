"""Rules of peeking at records: where to begin, what blocks a shard, how payloads are decoded and bounded, and what filters say.

What may live here: pure functions from records, checkpoints and texts of operators to what is shown. Nothing raises for the
content of a record, and all work on it is bounded or done in slices.
"""
