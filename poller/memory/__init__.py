"""What an adapter may ask about memory while it takes an answer. What may live here: the link, without any rule of its own."""
