"""Measures ten mappings on one stream: what they ask of it, how late its records come, and what that takes."""
