"""Values: records, outcomes, rows, plans, telemetry events, errors.

What may live here: frozen values and the code that keeps them valid. Nothing here imports another part of the project.
"""
