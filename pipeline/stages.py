"""How each kind of stage turns its inputs into an artifact. The extractor computes; this module reads, feeds and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import ExtractorError, Faces, Frames, Int64, Kind, Person, Rows, Track
from pipeline import artifact, embedding, openface, sound, tables, video
from pipeline.artifact import Provenance
from pipeline.errors import Problem, TrialError
from pipeline.hdf5 import is_whole
from pipeline.pictures import Pictures
from pipeline.spent import Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One artifact of a job: for which trial and person, from which input artifacts (in the order the stage reads them), to where.

    found_in: faces artifacts in which the same faces were found already, the best first; when the job runs they may be there or not.
    over: compute it even where it is there.
    """

    key: str
    trial: str
    person: Person
    inputs: tuple[Path, ...]
    target: Path
    found_in: tuple[Path, ...] = ()
    over: bool = False


# Writes one item's artifact: what it is and its warnings are handed over, the rest of the provenance is the worker's.
Publish = Callable[[Item, Callable[[Path, Provenance], None], Sequence[str], dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a stage does, whoever the trial is. reads: the kinds of its inputs, in order; root: of pictures or tables."""

    yields: Kind
    reads: tuple[Kind, ...]
    extractor: Any
    root: Path | None = None


def run(recipe: Recipe, source: Path, items: Sequence[Item], publish: Publish, spent: Spent) -> None:
    """Compute the items, all of one source. Raises TrialError, PassingError or ExtractorError."""
    kind, extractor = recipe.yields, recipe.extractor
    if kind is Kind.TIMELINE:
        _timeline(extractor, source, items, publish, spent)
    elif kind is Kind.WAVEFORM:
        _waveform(extractor, source, items, publish, spent)
    elif kind is Kind.FACES:
        _faces(recipe, source, items, publish, spent)
    else:
        _feature(recipe, source, items, publish)


def _timeline(extractor: Any, source: Path, items: Sequence[Item], publish: Publish, spent: Spent) -> None:
    with spent.on("decode"):
        decoded = video.frame_times(source)
    rows: Rows = extractor.rows(decoded.times_s)
    write = partial(artifact.write_timeline, rows=rows, source_times_s=decoded.times_s)
    for item in items:
        publish(item, write, _damage_warnings(decoded.info["damage"]), decoded.info)


def _damage_warnings(damage: dict[str, Any]) -> list[str]:
    said = {
        "packets_lost": "packets could not be decoded, so their frames are missing",
        "frames_untimed": "frames have no presentation time; theirs was guessed from the rate",
        "s_missing": "seconds before the end that the headers promise, the pictures end: the file may be cut off",
        "steps_back": "frames are timed before the one they follow; they were put just behind it",
        "same_time": "frames have the time of the one they follow; they were put just behind it",
    }
    return [f"{damage[name]} {text}" for name, text in said.items() if name in damage]


def _waveform(extractor: Any, source: Path, items: Sequence[Item], publish: Publish, spent: Spent) -> None:
    with spent.on("decode"):
        decoded = sound.decode(source, extractor.rate_hz)
    waveform = extractor.condition(decoded.waveform)
    for item in items:
        publish(item, partial(artifact.write_waveform, waveform=waveform), decoded.warnings, decoded.info)


def _faces(recipe: Recipe, source: Path, items: Sequence[Item], publish: Publish, spent: Spent) -> None:
    """All persons of one source in one pass over its frames, where their timelines are the same."""
    extractor, root = recipe.extractor, recipe.root
    groups: dict[tuple[Path, Path | None], list[Item]] = {}
    for item in items:
        # What would be copied into a new artifact is read through to its checksum: it would vouch for a damaged one.
        found_in = next((path for path in item.found_in if path.exists() and is_whole(path)), None)
        groups.setdefault((item.inputs[0], found_in), []).append(item)
    for (timeline, found_in), group in groups.items():
        rows, source_times_s = artifact.read_timeline(timeline)
        shown = np.unique(rows.frame)
        if root is not None:
            for item in group:
                pictures = Pictures(root / item.trial)
                _write_faces(item, extractor.read(pictures, shown), rows, publish, _picture_warnings(pictures))
            continue
        decoded = partial(_frames, source, len(source_times_s), spent)
        persons = tuple(dict.fromkeys(item.person for item in group))
        if found_in is None:
            faces = extractor.follow(decoded(shown), persons)
        else:
            faces = extractor.choose(artifact.read_found(found_in), shown, source_times_s[shown], decoded, persons)
        for item in group:
            _write_faces(item, faces[item.person], rows, publish, found_in=found_in.stem if found_in else "")


def _frames(source: Path, n_source: int, spent: Spent, wanted: Int64) -> Iterator[Frames]:
    return spent.each("decode", video.frames(source, wanted, n_source))


def _write_faces(item: Item, faces: Faces, rows: Rows, publish: Publish, warnings: Sequence[str] = (), found_in: str = "") -> None:
    publish(item, partial(artifact.write_faces, faces=faces, rows=rows, found_in=found_in), warnings, {})


def _picture_warnings(pictures: Pictures) -> list[str]:
    found = [f"{len(pictures.ignored)} entries of {pictures.folder.name} were ignored: {', '.join(pictures.ignored[:3])}"]
    return (found if pictures.ignored else []) + (
        [] if len(pictures) else [f"no pictures: {pictures.folder} has none, so all rows are masked"]
    )


def _feature(recipe: Recipe, source: Path, items: Sequence[Item], publish: Publish) -> None:
    """Extractors of sound, of faces and of tables alike: one track per item."""
    extractor = recipe.extractor
    for item in items:
        inputs = dict(zip(recipe.reads, item.inputs, strict=True))
        warnings: Sequence[str] = ()
        if Kind.FACES in inputs:
            track = embedding.embed(extractor, inputs[Kind.FACES])
        elif Kind.WAVEFORM in inputs:
            row_times_s = artifact.read_rows(inputs[Kind.TIMELINE]).times_s if Kind.TIMELINE in inputs else None
            track = extractor.extract(artifact.read_waveform(inputs[Kind.WAVEFORM]), row_times_s)
        else:
            track, warnings = _tabled(extractor, recipe.root, source, item)
        publish(item, partial(artifact.write_track, track=track), (*getattr(extractor, "warnings", ()), *warnings), {})


def _tabled(extractor: Any, root: Path | None, source: Path, item: Item) -> tuple[Track, Sequence[str]]:
    """From the table that lies in the root, or from the one that the user's program makes of the source."""
    rows, source_times_s = artifact.read_timeline(item.inputs[0])
    n_frames = len(source_times_s)
    with openface.computed_table(source, n_frames) if root is None else nullcontext(_table_in(root, source, item)) as path:
        try:
            with path.open("rb") as file:
                read: tuple[Track, Sequence[str]] = extractor.read_table(tables.lines(file), rows, n_frames)
        except ExtractorError as error:
            raise TrialError(Problem(what=error.what, where=path.name, why=error.why, fix=error.fix)) from error
    return read


def _table_in(root: Path, source: Path, item: Item) -> Path:
    path = tables.find_table(root, item.trial, source.stem)
    if path is None:
        names = " or ".join(dict.fromkeys((f"{item.trial}.csv", f"{source.stem}.csv")))
        raise TrialError(Problem(what="there is no table", where=str(root), why=f"no {names} in it", fix="put it there, then run again"))
    return path
