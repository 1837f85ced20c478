"""Places from which notices of given-up batches are read again. Each module but `settings` is one plug-in, found by its entry point."""
