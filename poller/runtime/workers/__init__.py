"""The shell of this worker among others: its heartbeat, and what a mapping sees of the other workers.

What may live here: what workers tell each other through the store.
"""
