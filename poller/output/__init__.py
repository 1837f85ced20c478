"""What the process writes: an output that never waits, the lines of functions, and lines beside the log.

What may live here: the ways of a line to a descriptor. What the log says stands in the observers.
"""
