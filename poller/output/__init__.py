"""The process's output: streams that never block, the lines of functions, and lines outside of the log.

What may live here: how a line gets to a file descriptor. The content of the log is decided in the observers.
"""
