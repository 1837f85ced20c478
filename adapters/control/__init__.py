"""The HTTP server: Lambda's mapping API, `/v1`, probes, metrics and the page.

What may live here: the server, its routes and its limits. Who may do what stands in `access`, how a mapping is read and
written in `mappings`, the API's own description in `openapi`.
"""
