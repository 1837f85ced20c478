"""Tests of the rules for how many workers there should be."""
