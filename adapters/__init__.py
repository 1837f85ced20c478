"""Connections to the outside: AWS, HTTP, SQLite, Prometheus. They implement the ports of `poller.ports`.

What may live here: one package a family (sources, invokers, destinations, stores, checkpoints, observers, control, commands, demo).
Families do not import each other. What several share stands in `aws`, and in `private_files`.
"""
