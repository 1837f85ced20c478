"""Connections to the outside: AWS, HTTP, SQLite, Prometheus. They implement the ports of `poller.ports`.

What may live here: one package per family (sources, invokers, destinations, stores, checkpoints, observers, control, commands,
demo). Families do not import each other. What several of them share is in `aws`, `bounded_answers` and `private_files`.
"""
