"""Which of a store's features a recipe reads. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from pipeline.store import Store
from trainer.errors import Problem, TrainerError
from trainer.recipe import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Names of the store's features. notes: where others than the recipe's own are taken, in words."""

    audio: tuple[str, ...]
    visual: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.audio, *self.visual)


def choose_features(store: Store, wanted: Features) -> Chosen:
    """The recipe's features; of a kind of which the store has none of those, all that it has of the kind instead, which is noted.

    Raises TrainerError where a kind that the recipe reads is not in the store at all, and StoreError where a feature cannot be read.
    """
    about = {name: store.open_feature(name) for name in store.features}
    for word in {*wanted.audio, *wanted.visual} & set(store.damaged):
        store.open_feature(word)  # another one must not take its place unsaid
    problems: list[Problem] = []
    notes: list[str] = []
    found = {}
    for kind in ("audio", "visual"):
        words: tuple[str, ...] = getattr(wanted, kind)
        names = [name for word in words for name in _named(word, {name: one.extractor for name, one in about.items()})]
        missing = [word for word in words if not _named(word, {name: one.extractor for name, one in about.items()})]
        others = sorted(name for name, one in about.items() if one.modality == kind)
        if words and not names:
            names = others
            if not others:
                problems.append(_nothing(store, kind, words))
            else:
                notes.append(f"{kind}: {', '.join(others)} instead of {', '.join(words)}, which the store does not have")
        elif missing:
            notes.append(f"{kind}: {', '.join(names)}; without {', '.join(missing)}, which the store does not have")
        found[kind] = tuple(dict.fromkeys(names))
    if problems:
        raise TrainerError(problems)
    return Chosen(audio=found["audio"], visual=found["visual"], notes=tuple(notes))


def _named(word: str, extractor_of: dict[str, str]) -> list[str]:
    return [word] if word in extractor_of else sorted(name for name, extractor in extractor_of.items() if extractor == word)


def _nothing(store: Store, kind: str, words: tuple[str, ...]) -> Problem:
    near = get_close_matches(words[0], store.features, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(store.features) or "none"
    why = f"the recipe reads {', '.join(words)}; the store's features are: {known}"
    fix = f"{hint}run the stages of some, name others with --set features.{kind}=[NAME], or leave them out with --set features.{kind}=[]"
    return Problem(what=f"no {kind} feature", where=str(store.folder), why=why, fix=fix)
