"""Who may do what: signatures, tokens, credential files, requests of web pages, and the audit of changes.

What may live here: everything that admits, refuses or records a request because of who sent it.
"""
