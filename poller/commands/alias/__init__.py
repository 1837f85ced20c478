"""`poller alias`: shows aliases of functions, shifts them to another version and rolls them back, through a daemon's API."""
