"""Shells of queue mappings: a mapping, its pollers, their batches, deletes and visibility.

What may live here: loops that wait for a queue. Streams have a wing of their own; neither imports the other.
"""
