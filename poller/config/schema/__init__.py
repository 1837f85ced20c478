"""The JSON Schema of the configuration file, for editors. It is made from the models and the table that validate.

What may live here: how pydantic's schemas become ones that editors show well, what the table of AWS's members adds to them, and the texts
that people read. What a schema cannot say (rules between members, forms of URLs and ARNs) only the loader checks.
"""
