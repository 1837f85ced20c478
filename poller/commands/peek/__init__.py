"""`poller peek`: shows records of a shard, through a daemon.

What may live here: the command's options, the request to the daemon, and how the answer looks.
"""
