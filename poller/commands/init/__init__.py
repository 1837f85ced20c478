"""`poller init` and `poller schema`: configurations made for people.

What may live here: their options, the questions, and the writing of files. What a file contains is decided in `poller.config`.
"""
