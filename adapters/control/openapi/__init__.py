"""The OpenAPI document of the server.

What may live here: descriptions of paths and schemas, made from the tables that requests are read by.
"""
