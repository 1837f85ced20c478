"""The texts of errors in the configuration: the place, the value, the problem and the remedy.

What may live here: the texts and hints of such errors. Plug-ins use them to report errors in their own settings.
"""
