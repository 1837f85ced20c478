"""The engine: reads sources, batches in order, invokes, retries and settles; knows no vendor library.

What may live here: values, ports, rules (pure) and runtime (asyncio shells), and the composition root.
Nothing in this package imports `adapters`; plug-ins are found by name among installed entry points.
"""
