"""Configuration files that are written for people: from answers, or from a template of another tool.

What may live here: what such a file has, how it is written with comments, how templates are read, and what of them becomes a setting.
"""
