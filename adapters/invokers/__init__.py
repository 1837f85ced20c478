"""Ways to call a function; each plug-in is a module, found by its entry point.

What may live here: the plug-ins, and what all of them make of answers. Python handlers stand in `handlers`, functions that are
processes of their own in `function_processes`.
"""
