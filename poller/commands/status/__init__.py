"""`poller status`: what runs, on all workers.

What may live here: the request to a daemon, and how the answer looks on a screen.
"""
