"""Owns which names a model of settings knows, and which of them a misspelled one may have meant."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TypeAliasType, get_args

from pydantic import BaseModel

ALIKE = 0.6
"""How alike a name has to be that differs by more than one letter; 1 is the same."""
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
    """Those that differ by one letter from `name`, whatever their case; else the one that is most alike, if any is."""
    folded = {each.lower(): each for each in known}
    wanted = name.lower()
    found = [each for each in folded if one_letter_apart(wanted, each)]
    if not found:
        found = get_close_matches(wanted, folded, n=1, cutoff=ALIKE)
    return [folded[each] for each in sorted(found)[:MEANT_MAX]]


def one_letter_apart(one: str, other: str) -> bool:
    """Whether a letter more, less or another, or two that are swapped, make one of the other; also if they are the same."""
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
    """The models that an annotation holds, however deep in unions, containers and names of types."""
    if isinstance(annotation, TypeAliasType):
        return models_of(annotation.__value__)
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_of(inner)]
