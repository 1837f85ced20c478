"""Rules for workers that share mappings: who is alive, who works on which shard, and who may use how much.

What may live here: decisions that every worker makes in the same way from the same rows of the store.
"""
