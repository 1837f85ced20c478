"""Connections to the outside: AWS, HTTP, SQLite, Prometheus. They implement the ports of `poller.ports`.

What may live here: one package a family (sources, invokers, destinations, stores, observers, control); families do
not import each other, what they share stands in `aws.py` and `pacing.py`.
"""
