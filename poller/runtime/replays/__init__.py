"""Replays on this worker: each is a hidden stream mapping with an end, which runs beside the mapping that it belongs to.

All workers that run the mapping run its replays too. The leases and checkpoints of a replay are in the store under the hidden
mapping's id, so shards are shared, taken over after crashes, and fenced as those of any mapping.
"""
