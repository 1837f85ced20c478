"""Owns how a number and what it counts are written: one record, two records."""


def number_of(number: int, noun: str, plural: str | None = None, *, of: int | None = None) -> str:
    """`number` with its noun: `1 record`, `2 records`. With `of`: `1 of 3 records`.

    `plural` is for nouns that take more than an s: `batches`.
    """
    shown = f"{number}" if of is None else f"{number} of {of}"
    return f"{shown} {inflected(number if of is None else of, noun, plural)}"


def inflected(number: int, one: str, several: str | None = None) -> str:
    """The word alone: `one` for a single thing, else `several`, which is `one` with an s if it is not given."""
    return one if number == 1 else several or f"{one}s"
