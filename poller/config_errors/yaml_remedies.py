"""Owns what to do about each error of the YAML reader. Its errors have no codes, so they are told apart by their words."""

from collections.abc import Sequence

_REMEDIES: Sequence[tuple[str, str]] = (
    (r"character '\t'", "indent with blanks, not with tabs"),
    ("cannot start any token", "put the text in quotes"),
    ("undefined alias", "put a text that begins with * in quotes"),
    (
        "mapping values are not allowed",
        "put a text with a colon in quotes, or line names up with those of their level",
    ),
    ("sequence entries are not allowed", "begin a list on the line below its name"),
    ("double-quoted scalar", r"write \\ for a backslash, or use single quotation marks"),
    ("quoted scalar", "close the quotation mark"),
    ("<stream end>", "close the bracket or brace that is still open"),
    ("flow sequence", "close the list with ], or put a text with such characters in quotes"),
    ("flow mapping", "close the mapping with }, or put a text with such characters in quotes"),
    ("another document", "keep one document, and remove the line ---"),
    ("document start", "keep one document, and remove the line ... or what stands before the first name"),
    ("unhashable key", "write a text as the name"),
    ("for merging", "give << the alias of a mapping"),
    ("block scalar", "write | or > alone behind the name, and the text on the lines below"),
    ("simple key", "write `name: value`"),
    ("node content", "put the text in quotes"),
    ("block end", "line names up with those of their level, and put a text with quotation marks in quotes"),
)
"""Words of an error, and what to do. The first that fits counts."""
OTHERWISE = "write the value itself, without tags, anchors and directives"


def remedy(problem: str) -> str:
    """What to do about an error of the YAML reader."""
    return next((remedy for words, remedy in _REMEDIES if words in problem), OTHERWISE)
