"""`poller run --processes`: one supervisor process, several worker processes on one store, one port.

What may live here: what concerns the processes of one machine's daemon. The supervisor reads no records and calls no function.
"""
