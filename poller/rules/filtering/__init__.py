"""Filter criteria: patterns in EventBridge's language, with the results of AWS's Event Ruler (aws-behaviour#filtering).

What may live here: parsing and validating patterns, their compiled predicates, the part of each source's records that a pattern
sees, and explanations. A pattern is parsed once. Its predicate never raises, so a record never fails its batch.

The modules: `pattern_json` reads the text of a pattern, `parsing` makes branches of fields of it, and `operators` makes the
conditions of each field. `conditions` compiles the conditions on one value, and `addresses` reads IP addresses. `structure` finds values in an event and keeps array
elements together. `pattern` joins these. `views` decodes payloads, and `explaining` says which condition failed. Work that would
block the event loop for long is done in slices: `reading` reads the text of a large payload, `summaries` keeps what is needed of
each part of it, and `alternatives` evaluates the branches of a filter at once or in slices.
"""

from poller.rules.filtering.conditions import Slices
from poller.rules.filtering.errors import InvalidPattern
from poller.rules.filtering.explaining import Explanation, Failure, explain, explain_record
from poller.rules.filtering.pattern import Pattern, compile_pattern
from poller.rules.filtering.views import Answer, Filter, Source, is_light

__all__ = [
    "Answer",
    "Explanation",
    "Failure",
    "Filter",
    "InvalidPattern",
    "Pattern",
    "Slices",
    "Source",
    "compile_pattern",
    "explain",
    "explain_record",
    "is_light",
]
