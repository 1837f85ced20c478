"""Mappings in requests and answers: members, the document, tags, lists in pages.

What may live here: the JSON of Lambda's event source mapping API, without its routes.
"""
