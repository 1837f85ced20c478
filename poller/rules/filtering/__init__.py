"""Filter criteria: patterns in EventBridge's language, with the answers of AWS's Event Ruler (aws-behaviour#filtering).

What may live here: parsing and validating patterns, their compiled predicates, what a pattern sees of each source's
records, and explanations. A pattern is parsed once; its predicate is total, so a record never fails its batch.

Within: `parsing` turns text into branches of conditions, `conditions` compiles those on one value, `addresses` knows
IP addresses, `structure` finds values in an event and keeps array elements together, `pattern` joins these, `views`
decodes payloads, `explaining` says which condition failed. What would be a long step of the event loop is done in slices:
`reading` goes through the text of a payload, `summaries` says what is to be known of each part of it, `alternatives` asks the
branches of a filter in one way or the other.
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
