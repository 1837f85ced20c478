"""`poller run`: starts the daemon's process, reports its start and its end, and ends it in time.

What may live here: what concerns the whole process of a daemon: signals, memory, and the watch over the event loop.
"""
