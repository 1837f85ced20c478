"""Operations on what runs: they are read from the store, carried out where their targets are held, and their results are stored.

It knows running mappings by the Protocol `Operable` only.
"""
