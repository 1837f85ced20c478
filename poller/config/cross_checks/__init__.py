"""Checks of what plug-ins' settings have to do with other parts of the document.

What may live here: one module for each such relation. The document is read as it was written, like in `poller.config.plugin_settings`.
"""
