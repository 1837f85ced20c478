"""How values are put into words for people. Nothing here knows what the values mean."""
