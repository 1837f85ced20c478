"""Owns how an operator names a mapping or a shard: by its id, or by a readable name that only one of them has.

A mapping `5f1c...` of the stream `orders` and the function `ship` can be named in these ways:

- its id, in any case, or the beginning of it, eight characters at least;
- the ARN of its source or function;
- `orders` or `ship`; a function's qualifier may be left out;
- `stream/orders` or `function/ship`, if a function and a stream have the same name. The word is that of the source's ARN:
  `stream` (Kinesis), `table` (DynamoDB) or `queue` (SQS).

The first way in this order that fits any mapping is taken. It must fit exactly one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from poller.domain.arns import Arn
from poller.domain.records import MappingId, ShardId
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import inflected, number_of

ID_CHARS_MIN = 8
"""The shortest beginning of an id that names a mapping. Shorter ones are rather names."""
NAME_CHARS_MAX = 200
"""How much of a name is repeated in an error."""
CANDIDATES_MAX = 10
"""Candidates that an error names."""
_SHARD = "shardId-"


class UnknownTarget(Exception):
    """A name that no mapping or shard has, or several have. The text says which there are; write one of those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMapping:
    """What names a mapping. `function` is the ARN or the name of its function, with its qualifier if it has one."""

    mapping: MappingId
    function: str
    source_arn: str


def find_mapping(text: str, mappings: Sequence[NamedMapping]) -> NamedMapping:
    """The mapping that `text` names; raises UnknownTarget."""
    wanted = text.strip()
    for fits in _ways(wanted):
        found = [each for each in mappings if fits(each)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownTarget(
                f"{_shown(text)} may be any of {number_of(len(found), 'mapping')}: {_several(map(described, found))}; "
                f"write the id, or a name that only one has"
            )
    if not mappings:
        raise UnknownTarget(f"{_shown(text)} is no mapping: there are no mappings")
    raise UnknownTarget(f"{_shown(text)} is no mapping; mappings: {_several(map(described, mappings))}")


def names_it(text: str, mapping: NamedMapping) -> bool:
    """Whether `text` is a name of this mapping, which others may have too."""
    return any(fits(mapping) for fits in _ways(text.strip()))


class ShardNames:
    """What names the shards of one stream. Made once, it finds each of many names without a look at every shard."""

    def __init__(self, shards: Iterable[ShardId]) -> None:
        self._there = sorted(set(shards))
        self._ids = frozenset(self._there)
        self._numbers: dict[str, list[ShardId]] = {}
        for shard in self._there:
            if (number := _number_of(shard)) is not None:
                self._numbers.setdefault(number, []).append(shard)
        self._backwards = sorted(shard[::-1] for shard in self._there)

    def find(self, text: str) -> ShardId:
        """The shard that `text` names: its id, the number in it (`3` for `shardId-000000000003`), or an ending that only it has.

        Raises UnknownTarget.
        """
        wanted, there = text.strip(), self._there
        if not wanted and there:
            raise UnknownTarget(
                f"there {inflected(len(there), 'is', 'are')} {number_of(len(there), 'shard')}, and none is named; write one of them: {_several(there)}"
            )
        found = self._found(wanted)
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownTarget(
                f"{_shown(text)} may be any of {number_of(len(found), 'shard')}: {_several(found)}; write more of it"
            )
        if not there:
            raise UnknownTarget(f"{_shown(text)} is no shard: the source lists no shards")
        raise UnknownTarget(f"{_shown(text)} is no shard of this mapping; its shards: {_several(there)}")

    def _found(self, wanted: str) -> Sequence[ShardId]:
        if wanted in self._ids:
            return [ShardId(wanted)]
        if _is_number(wanted) and (numbered := self._numbers.get(wanted.lstrip("0"))):
            return numbered
        return self._ending(wanted) if wanted else ()

    def _ending(self, wanted: str) -> Sequence[ShardId]:
        backwards, size = wanted[::-1], len(wanted)
        first = bisect_left(self._backwards, backwards)
        behind = bisect_right(self._backwards, backwards, lo=first, key=lambda each: each[:size])
        return sorted(ShardId(each[::-1]) for each in self._backwards[first:behind])


def find_shard(text: str, shards: Iterable[ShardId]) -> ShardId:
    """The shard that `text` names, as `ShardNames.find`. Raises UnknownTarget."""
    return ShardNames(shards).find(text)


def may_name(text: str, shard: ShardId) -> bool:
    """Whether `text` may have named this shard among others: by its id, its number, or an ending. A number is no ending of a shard that has another number."""
    wanted = text.strip()
    if _is_number(wanted) and _is_number(shard.removeprefix(_SHARD)):
        return _number_of(shard) == wanted.lstrip("0")
    return bool(wanted) and shard.endswith(wanted)


def described(mapping: NamedMapping) -> str:
    """A mapping with all that names it: `5f1c... (function/ship, stream/orders)`."""
    names = (f"function/{_function_name(mapping.function)}", _source_names(mapping.source_arn)[0])
    return f"{mapping.mapping} ({', '.join(line_of(name, chars_max=NAME_CHARS_MAX) for name in names)})"


def _ways(wanted: str) -> tuple[Callable[[NamedMapping], bool], ...]:
    lower = wanted.lower()
    return (
        lambda each: each.mapping.lower() == lower,
        lambda each: wanted.startswith("arn:") and wanted in (each.source_arn, each.function),
        lambda each: wanted in _names(each),
        lambda each: wanted in _unqualified(each.function),
        lambda each: len(wanted) >= ID_CHARS_MIN and each.mapping.lower().startswith(lower),
    )


def _names(mapping: NamedMapping) -> tuple[str, ...]:
    name = _function_name(mapping.function)
    return (name, f"function/{name}", *_source_names(mapping.source_arn))


def _unqualified(function: str) -> tuple[str, ...]:
    """A function's names without its qualifier."""
    name = _function_name(function).partition(":")[0]
    return (name, f"function/{name}")


def _function_name(function: str) -> str:
    """The name with its qualifier, if it has one."""
    arn = Arn.read(function)
    return arn.function if arn is not None and arn.function else function


def _source_names(source_arn: str) -> tuple[str, ...]:
    """`stream/orders` and `orders`; for the stream of a table also its whole resource; for a queue `queue/orders`."""
    arn = Arn.read(source_arn)
    if arn is None:
        return (source_arn,)
    kind, slash, name = arn.resource.partition("/")
    if not slash:
        return (f"queue/{arn.resource}", arn.resource)
    if kind == "table":
        name = name.partition("/stream/")[0]
    return (f"{kind}/{name}", name, arn.resource)


def _number_of(shard: ShardId) -> str | None:
    """The number of a shard of Kinesis, without leading zeros; None for one of a table, which has more behind it."""
    end = shard.removeprefix(_SHARD)
    return end.lstrip("0") if shard.startswith(_SHARD) and _is_number(end) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _shown(text: str) -> str:
    return repr(line_of(text, chars_max=NAME_CHARS_MAX))


def _several(texts: Iterable[str]) -> str:
    """The first of `texts`, and how many more there are."""
    every = list(texts)
    more = len(every) - CANDIDATES_MAX
    return ", ".join(every[:CANDIDATES_MAX]) + (f" and {more} more" if more > 0 else "")
