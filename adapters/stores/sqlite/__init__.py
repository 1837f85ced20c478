"""The store in one SQLite file.

What may live here: the file, its connection, its statements and its checks.
"""
