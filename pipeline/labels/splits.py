"""Which split a folder's, a file's or a cell's name means."""

from __future__ import annotations

import re

_WORDS = {
    "train": ("train", "training", "trainset", "trainingset"),
    "validation": ("val", "valid", "validate", "validation", "valset", "validset", "validationset", "dev", "development"),
    "test": ("test", "testing", "testset"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


def split_of(name: str) -> str:
    """`Train_Set`, `validate`, `Test Set`, `valid_split` -> "train", "validation", "test", "validation"; "" for any other name."""
    split, rest = split_and_rest(name)
    return "" if rest else split


def split_and_rest(name: str) -> tuple[str, str]:
    """A split's name at either end of a name, and what is left: `fatigue_train` -> ("train", "fatigue"); `fatigue` -> ("", "fatigue")."""
    words = [word for word in re.split(r"[\s_.-]+", name) if word]
    plain = [word for word in words if word.casefold() not in ("set", "split")]
    for place, rest in ((plain[-1:], plain[:-1]), (plain[:1], plain[1:])):
        if place and (split := _SPLIT_OF.get(place[0].casefold())):
            return split, "_".join(rest)
    return "", name
