"""Shells of queue mappings: a mapping, its pollers, their batches, deletes and visibility.

What may live here: loops that wait for a queue. Loops of streams are in `runtime/streams`; neither folder imports the other.
"""
