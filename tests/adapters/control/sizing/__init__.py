"""Tests of the route that says how many workers there should be."""
