"""The life of mappings: which there should be, which run, their parts, their changes and states.

What may live here: what concerns a mapping as a whole, whatever its source is.
"""
