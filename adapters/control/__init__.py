"""The HTTP server: Lambda's mapping API, `/v1`, probes, metrics and the page.

What may live here: the server, its routes and its limits. `access` decides who may do what, `mappings` reads and writes the
JSON of mappings, and `openapi` describes the API.
"""
