"""`poller breaker`: what an operator does with the circuit breakers of functions, through a daemon's API."""
