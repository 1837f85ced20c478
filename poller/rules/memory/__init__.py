"""How the memory of the daemon is shared among its readers. What may live here: pure rules about bytes, for streams and queues alike."""
