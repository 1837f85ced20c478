"""Functions as processes: their start and end, their output, and Lambda's Runtime API for them.

What may live here: everything about the process of a function, whatever language the function is written in.
"""
