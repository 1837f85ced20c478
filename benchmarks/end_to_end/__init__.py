"""What a batch costs through a real invoker, and how late it is, beside a bare loop that makes the same calls."""
