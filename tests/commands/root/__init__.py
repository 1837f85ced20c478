"""What belongs to the command line as a whole."""
