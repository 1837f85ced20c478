"""Tables of the configuration that are an idea of their own: a model, and the checks between its settings.

What may live here: models that `poller.config.settings` puts together. Nothing here imports it.
"""
