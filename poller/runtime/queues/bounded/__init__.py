"""How the pollers of queues keep within the daemon's memory. What may live here: the account of a mapping, and sizes of its messages."""
