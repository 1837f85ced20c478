"""`poller consumers`: the consumers that mappings have of their own. AWS charges for them, so an operator must see and remove them."""
