"""`poller calls`: what waits for functions that were called asynchronously, and what an operator does with it, through a daemon's API."""
