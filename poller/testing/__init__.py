"""Contract suites for plug-ins: what every source, invoker, destination, store and observer must do.

What may live here: scenarios that drive a port, each an `async` function named by the fact that it checks, and tuples that
group them. The tests of this project and of a plug-in's own package import them; the engine and its adapters never do.
The suites need pytest, and `store_history` needs hypothesis: `pip install esm-poller[testing]` brings both.
"""
