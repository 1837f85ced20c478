"""Filter criteria: patterns in EventBridge's language, answered as AWS's Event Ruler answers (spec section 9).

What may live here: parsing and validating patterns, their compiled predicates, what a pattern sees of each source's
records, and explanations. A pattern is parsed once; its predicate is total, so a record never fails its batch.

Within: `parsing` turns text into branches of conditions, `conditions` compiles those on one value, `addresses` knows
IP addresses, `structure` finds values in an event and keeps array elements together, `pattern` joins these, `views`
decodes payloads, `explaining` says which condition failed.
"""

from poller.rules.filtering.errors import InvalidPattern
from poller.rules.filtering.explaining import Explanation, Failure, explain, explain_record
from poller.rules.filtering.pattern import Pattern, compile_pattern
from poller.rules.filtering.views import Filter, Source

__all__ = [
    "Explanation",
    "Failure",
    "Filter",
    "InvalidPattern",
    "Pattern",
    "Source",
    "compile_pattern",
    "explain",
    "explain_record",
]
