"""When calls of a function with a rate or a breaker may begin: permits, and the waits for them.

What is decided stands in `poller/rules/flow_control`. Streams and queues both come here through the function's FlowControl.
"""
