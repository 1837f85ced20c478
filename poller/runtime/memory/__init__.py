"""The daemon's memory at run time. What may live here: who waits for room, and how much room there is."""
