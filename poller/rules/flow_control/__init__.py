"""When a function may be called at all: its rate over all workers, and the breaker that holds its calls while they fail.

Only decisions may live here. `poller/runtime/flow_control` waits for them and carries them out.
"""
