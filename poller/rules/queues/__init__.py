"""Rules of queue mappings: receives, batches, message groups, visibility, and how many pollers run.

What may live here: decisions about the messages of a queue. Streams have a wing of their own; neither imports the other.
"""
