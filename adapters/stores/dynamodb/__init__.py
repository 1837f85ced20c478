"""The store in one DynamoDB table.

What may live here: the table, its calls, its items, its checks, and how memos and checkpoints are written.
"""
