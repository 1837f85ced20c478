"""Kinesis data streams, by GetRecords and by enhanced fan-out.

What may live here: calls of the service, how its answers are read, and where reading goes on.
"""
