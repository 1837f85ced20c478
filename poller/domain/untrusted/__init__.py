"""How text, numbers and values from outside are made safe: cleaned, bounded, without credentials.

What may live here: pure functions that accept anything and raise nothing. Every text from outside goes through one of them where it enters.
"""
