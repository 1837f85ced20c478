"""Invokers, which call functions. Each plug-in is a module, found by its entry point.

What may live here: the plug-ins, and how they turn answers into outcomes. `handlers` has what concerns Python handlers, and
`function_processes` what concerns functions that are processes of their own.
"""
