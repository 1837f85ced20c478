"""How text, numbers and values from outside are made safe: cleaned, bounded, without credentials.

What may live here: pure functions that take anything and raise nothing. Every text from outside goes through here once, where it enters.
"""
