"""The engine: reads sources, batches in order, invokes, retries and settles; knows no vendor library.

What may live here: the command line, the ports, how plug-ins are found, the clock, and what exists once per process.
Everything else has a folder: `domain` (values), `rules` (decisions), `config`, `runtime` (asyncio shells), `commands`.
Nothing in this package imports `adapters`; plug-ins are found by name among installed entry points.
"""
