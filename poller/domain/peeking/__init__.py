"""What an operator sees who peeks at a shard.

What may live here: the request for records of a shard and the answer, which the API and `poller peek` share.
"""
