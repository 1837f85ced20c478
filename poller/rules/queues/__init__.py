"""Rules of queue mappings: receives, batches, message groups, visibility, and how many pollers run.

What may live here: decisions about the messages of a queue. Rules of streams are in `rules/streams`; neither folder imports the other.
"""
