"""`poller dry-run`: runs the engine on real sources and prints what would be called with what.

What may live here: what takes the place of the parts that would have an effect, and what is printed. The engine itself is the
daemon's. Its store is in memory, functions are replaced by a recorder, and destinations are left out.
"""
