"""Owns calls of AWS's clients: their trouble as port errors, and answers that are not as documented."""

from collections.abc import Mapping
from types import MappingProxyType, TracebackType

from adapters.aws.clients import mapped
from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.records import JsonObject

_ODD = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What comes of an answer with other members or types. What nests too deep is a RecursionError, which is no ValueError."""
_NOTHING: Mapping[str, type[PortError]] = MappingProxyType({})


class calling:  # noqa: N801 - it is used as a function is, like the context managers of `contextlib`
    """Around one call: `mapped`, and `understood` too, since the client's own parser trips over odd answers.

    A class, since it surrounds every call: a generator takes five times as long.
    """

    __slots__ = ("_operation", "_special")

    def __init__(self, operation: str, special: Mapping[str, type[PortError]] = _NOTHING) -> None:
        self._operation = operation
        self._special = special

    def __enter__(self) -> None:
        """Nothing happens before the call."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if type(error) is RuntimeError:
            # The library's word for a time that no calendar has.
            raise _undocumented(self._operation, error) from error
        if error is not None:
            with understood(self._operation), mapped(self._operation, self._special):
                raise error


class understood:  # noqa: N801 - as `calling`
    """Turns an answer without the members it must have into ServiceUnavailable."""

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        """Nothing happens before the look."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, _ODD):
            raise _undocumented(self._operation, error) from error


def _undocumented(operation: str, error: BaseException) -> ServiceUnavailable:
    return ServiceUnavailable(f"{operation}: the answer is not as documented: {type(error).__name__}")


def text_of(answer: JsonObject, name: str) -> str:
    """A text that an answer must have; raises ValueError for anything else, which an empty one is, too."""
    value = answer[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is no text")
    return value
