"""The store in a PostgreSQL database.

What may live here: its settings, its connections, its statements, its schema and its checks. Each write is one statement, and
nothing depends on which connection carries it out, so a pooler may stand between that gives out a connection for a transaction.
"""
