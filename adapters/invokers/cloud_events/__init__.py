"""CloudEvents 1.0 over HTTP: records as CloudEvents, in the three content modes of the HTTP binding, and what answers mean then.

What may live here: the attributes of an event, requests in each mode, and how an answer names records by the ids of events.
"""
