"""Functions as processes: their start, their output, and Lambda's Runtime API for them.

What may live here: what concerns a function's process, whatever language it is written in.
"""
