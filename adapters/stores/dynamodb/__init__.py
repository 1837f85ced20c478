"""The store in one DynamoDB table.

What may live here: the table, its calls, its items and its checks.
"""
