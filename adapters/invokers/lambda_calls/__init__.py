"""What the `lambda` invoker sends beside the event: its settings, the tenant, the sender's trace.

What may live here: what belongs to calls of Lambda alone. `adapters.invokers.lambda_api` makes the calls.
"""
