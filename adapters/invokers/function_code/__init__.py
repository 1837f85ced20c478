"""The code of Python functions as files: which modules are a function's own, how they are imported apart, and how changes are taken up.

Nothing here runs a handler.
"""
