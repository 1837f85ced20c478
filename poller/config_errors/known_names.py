"""Owns the names that a settings model knows, and the search for the name that a misspelled one may mean."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TypeAliasType, get_args

from pydantic import BaseModel

ALIKE = 0.6
"""How similar a name must be if it differs by more than one letter. 1 means equal."""
MEANT_MAX = 3

type Path = tuple[str | int, ...]


def known_names(model: object, path: Path) -> list[str]:
    """Names of the settings that a model has at `path`."""
    here = [model]
    for part in path:
        if members(here) and part in members(here):
            here = [members(here)[str(part)]]
        here = [inner for each in here for inner in models_of(each)]
    return list(members(here))


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The names that differ from `name` by one letter, ignoring case. If there are none, the most similar one, if it is similar enough."""
    folded = {each.lower(): each for each in known}
    wanted = name.lower()
    found = [each for each in folded if one_letter_apart(wanted, each)]
    if not found:
        found = get_close_matches(wanted, folded, n=1, cutoff=ALIKE)
    return [folded[each] for each in sorted(found)[:MEANT_MAX]]


def one_letter_apart(one: str, other: str) -> bool:
    """Whether two names are equal or differ by one inserted, deleted, replaced or swapped letter."""
    if abs(len(one) - len(other)) > 1:
        return False
    shorter, longer = sorted((one, other), key=len)
    same = next((at for at, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    if len(shorter) < len(longer):
        return shorter[same:] == longer[same + 1 :]
    swapped = shorter[same : same + 2] == longer[same : same + 2][::-1]
    return shorter[same + 1 :] == longer[same + 1 :] or (
        swapped and shorter[same + 2 :] == longer[same + 2 :]
    )


def question(names: Sequence[str]) -> str:
    """Asks whether one of these was meant."""
    return f"did you mean {' or '.join(names)}?"


def members(models: Iterable[object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for each in models:
        if isinstance(each, type) and issubclass(each, BaseModel):
            found |= {name: field.annotation for name, field in each.model_fields.items()}
        elif isinstance(each, type) and is_dataclass(each):
            found |= {field.name: field.type for field in fields(each)}
    return found


def models_of(annotation: object) -> list[object]:
    """The models in an annotation, at any depth in unions, containers and type aliases."""
    if isinstance(annotation, TypeAliasType):
        return models_of(annotation.__value__)
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_of(inner)]
