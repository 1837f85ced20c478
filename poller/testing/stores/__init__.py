"""The scenarios of the contract of stores, by what they are about."""
