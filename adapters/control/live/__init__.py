"""The page at `/`, and what keeps it up to date.

What may live here: how the files of `adapters/control/page` are served, and the stream of updates that the page reads.
"""
