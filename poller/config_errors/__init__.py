"""What an error in the configuration says: place, value, what is wrong and the remedy.

What may live here: the texts and the hints of such errors. Plug-ins report errors in their own settings with these.
"""
