"""Configuration: the settings, where they come from, their checks, and the plan that they become.

What may live here: pydantic models of settings, the reading of configuration files, and AWS's validation of a mapping.
"""
