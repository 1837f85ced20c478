"""Values about how many workers there should be. What may live here: what the API answers, and what workers tell each other of it."""
