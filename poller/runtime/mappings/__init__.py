"""The life cycle of mappings: which should run, which do run, their parts, their changes and their states.

What may live here: code about a mapping as a whole, for any kind of source.
"""
