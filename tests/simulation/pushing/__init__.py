"""Enhanced fan-out in simulated worlds: the fake service that pushes, how a worker subscribes to it, and the worlds that have it."""
