"""Lambda's API for functions: it calls the configured functions and shows them."""
