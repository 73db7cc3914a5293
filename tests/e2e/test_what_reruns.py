"""The manual's table of what reruns, row by row: which stages compute and which store files change, and no other byte or time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline import artifact, sound, video

STAGES = """\
version: 1
stages:
  timeline: {{use: timeline, rate_hz: native}}
  audio:    {{use: {audio}}}
  crops:    {{use: folder, from: timeline, root: crops}}
  colour:   {{use: {colour}, from: crops}}
  mfcc39:   {{use: mfcc39, from: audio}}
  peak:     {{use: {peak}, from: audio}}
store:
  rows: labels
  dtype: float32
  tail: repeat
  tolerance_rows: 2
  align: {{default: nearest}}
  fill: {{default: none}}
"""
VISUAL, AUDIO = ["colour.h5"], ["mfcc39.h5", "peak.h5"]
FEATURES = VISUAL + AUDIO
INDEX = ["index.h5"]
CLIPS = ("106", "207")
Change = Callable[[Any], None]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made_once")


@pytest.fixture
def desk(
    made_once: Path, some_clips: Callable[..., Any], new_desk: Callable[..., Any], plugin: Any, write_crops: Callable[..., None]
) -> Any:
    """Two clips (one has no sound), their labels, crops of some of their frames; run once. The first test's is kept for the others."""
    text = STAGES.format(audio="waveform", colour=plugin.use("Colour"), peak=plugin.use("Peak"))
    made = new_desk(*some_clips(*CLIPS), stages=text)
    root, kept = made.stages.parent, made_once / "desk"
    if kept.exists():
        shutil.copytree(kept, root, dirs_exist_ok=True)
        return made
    for name in CLIPS:
        write_crops(root / "crops" / name, [0, 1, 2, 10])
    made.run()
    shutil.copytree(root, kept)
    return made


def edit(desk: Any, *replacements: tuple[str, str]) -> None:
    text = desk.stages.read_text(encoding="utf-8")
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    desk.write_stages(text)


def label_file(desk: Any, name: str) -> Path:
    return Path(next(desk.labels.rglob(f"{name}.txt")))


def lengthen(desk: Any, rows: int) -> None:
    path = label_file(desk, "106")
    path.write_text(path.read_text(encoding="utf-8") + "0.5,0.5\n" * rows, encoding="utf-8")


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The store's HDF5 files that have other bytes or another time than before."""
    return sorted(name for name in before | after if name.endswith(".h5") and before.get(name) != after.get(name))


def run_after(desk: Any, *options: str, status: int = 0) -> tuple[dict[str, int], list[str]]:
    """What a run computed, and which store files it changed: those that it says it wrote."""
    before = desk.store_state()
    result = desk.run(*options, status=status)
    files = changed(before, desk.store_state())
    assert sorted(result["written"]) == files
    return result["computed"], files


def values_of(desk: Any, name: str) -> Any:
    with h5py.File(desk.store / f"{name}.h5") as file:
        return file["values"][:]


def assert_as_fresh(desk: Any, new_store: Path) -> None:
    """The store is the one that would be written with nothing there before, the features' keys and policies included."""
    fresh = replace(desk, store=new_store)
    fresh.run(status=desk.here("run").status)
    got, expected = desk.store_data(), fresh.store_data()
    assert got.keys() == expected.keys()
    assert [name for name in expected if got[name].tobytes() != expected[name].tobytes()] == []
    for path in sorted(new_store.glob("*.h5")):
        with h5py.File(path) as one, h5py.File(desk.store / path.name) as other:
            told = [{name: file.attrs[name] for name in file.attrs if name not in ("created_utc", "checksum")} for file in (one, other)]
        assert told[0] == told[1], path.name


def policy(old: str, new: str) -> Change:
    return lambda desk: edit(desk, (old, new))


def longer_and(old: str, new: str) -> Change:
    """With the labels of one trial two rows longer than its video; those are not part of the change."""

    def change(desk: Any) -> None:
        lengthen(desk, 2)
        desk.run()
        edit(desk, (old, new))

    return change


def relabel(desk: Any) -> None:
    path = label_file(desk, "106")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:5], "0.123,-0.321\n", *lines[6:]]), encoding="utf-8")


def move_to_other_split(desk: Any) -> None:
    path = label_file(desk, "106")
    target = path.parents[1] / "Validation_Set" / path.name
    assert target != path
    target.parent.mkdir(exist_ok=True)
    shutil.move(path, target)


# What is changed, and the store files that change with it.
NOTHING_RUNS: dict[str, tuple[Change, list[str]]] = {
    "align_of_one": (policy("default: nearest}", "default: nearest, mfcc39: previous}"), ["mfcc39.h5"]),
    "align_of_all": (policy("default: nearest}", "default: mean}"), FEATURES),
    "fill_of_one": (policy("default: none}", "default: none, colour: zero}"), VISUAL),
    "dtype": (policy("dtype: float32", "dtype: float16"), FEATURES),
    "label_values": (relabel, INDEX),
    "label_split": (move_to_other_split, INDEX),
    "label_rows": (lambda desk: lengthen(desk, 1), FEATURES + INDEX),
    "rows": (policy("rows: labels", "rows: timeline"), INDEX),  # the sample's labels have every frame: the same rows, otherwise named
    "rows_and_tail": (longer_and("rows: labels", "rows: timeline"), FEATURES + INDEX),
    "tail": (longer_and("tail: repeat", "tail: trim"), FEATURES + INDEX),
    "time_stamp": (lambda desk: (desk.videos / "106.mp4").touch(), []),
}


@pytest.mark.parametrize("name", NOTHING_RUNS)
def test_what_only_the_store_depends_on_runs_nothing(name: str, desk: Any, tmp_path: Path) -> None:
    change, files = NOTHING_RUNS[name]
    change(desk)
    assert run_after(desk) == ({}, sorted(files))
    assert run_after(desk) == ({}, [])
    assert_as_fresh(desk, tmp_path / "fresh")


def test_the_tolerance_decides_which_trials_there_are(desk: Any, tmp_path: Path) -> None:
    lengthen(desk, 2)
    desk.run()
    edit(desk, ("tolerance_rows: 2", "tolerance_rows: 1"))
    assert run_after(desk, status=1) == ({}, sorted(FEATURES + INDEX))
    with h5py.File(desk.store / "index.h5") as index:
        assert index["trials"].asstr()[:].tolist() == ["207"]
    assert_as_fresh(desk, tmp_path / "fresh")


def test_a_parameter_of_the_waveform_runs_sound_only(desk: Any, tmp_path: Path) -> None:
    before = values_of(desk, "peak")
    edit(desk, ("{use: waveform}", "{use: waveform, peak_dbfs: -6}"))
    assert run_after(desk) == ({"audio": 2, "mfcc39": 2, "peak": 2}, AUDIO)
    after = values_of(desk, "peak")
    there = np.isfinite(after) & (after > 0)
    assert not np.isclose(before[there], after[there]).any()
    np.testing.assert_allclose(after[there], 10 ** (-6 / 20), rtol=1e-3)
    assert_as_fresh(desk, tmp_path / "fresh")


def test_a_parameter_of_a_visual_extractor_runs_it_alone(desk: Any, plugin: Any) -> None:
    before = values_of(desk, "colour")
    edit(desk, ("from: crops}", "from: crops, scale: 2.0}"))
    assert run_after(desk) == ({"colour": 2}, VISUAL)
    np.testing.assert_array_equal(values_of(desk, "colour"), before * 2)


def test_one_more_video_runs_its_own_stages(desk: Any, sample: Any, tmp_path: Path, write_crops: Callable[..., None]) -> None:
    shutil.copy2(sample.videos / "122-60-416x304.mp4", desk.videos)
    write_crops(desk.stages.parent / "crops" / "122-60-416x304", [3])
    assert run_after(desk) == ({"timeline": 1, "audio": 1, "crops": 1, "colour": 1, "mfcc39": 1, "peak": 1}, sorted(FEATURES + INDEX))
    with h5py.File(desk.store / "index.h5") as index:
        assert index["trials"].asstr()[:].tolist() == ["106", "122-60-416x304", "207"]
    assert_as_fresh(desk, tmp_path / "fresh")


def test_a_video_under_another_name_runs_nothing(desk: Any, tmp_path: Path) -> None:
    """Its label file and its crops are renamed with it: another trial, and the same tracks."""
    (desk.videos / "106.mp4").rename(desk.videos / "300.mp4")
    path = label_file(desk, "106")
    path.rename(path.with_name("300.txt"))
    (desk.stages.parent / "crops" / "106").rename(desk.stages.parent / "crops" / "300")
    assert run_after(desk) == ({}, sorted(FEATURES + INDEX))
    with h5py.File(desk.store / "index.h5") as index:
        assert index["trials"].asstr()[:].tolist() == ["207", "300"]
    assert_as_fresh(desk, tmp_path / "fresh")


def test_the_person_is_the_index_s(some_clips: Callable[..., Any], new_desk: Callable[..., Any], tmp_path: Path) -> None:
    """`video5_left` is the left person of video5.mp4, but the only one of video5_left.mp4, which may be the same bytes."""
    videos, labels = some_clips("video5")
    next(labels.rglob("video5_right.txt")).unlink()
    desk = new_desk(videos, labels)
    desk.run()
    (videos / "video5.mp4").rename(videos / "video5_left.mp4")
    assert run_after(desk) == ({}, INDEX)
    with h5py.File(desk.store / "index.h5") as index:
        assert index["trials"].asstr()[:].tolist() == ["video5_left"]
        assert index["person"].asstr()[:].tolist() == ["main"]
    assert_as_fresh(desk, tmp_path / "fresh")


def test_a_renamed_stage_runs_and_leaves_the_old_file(desk: Any) -> None:
    edit(desk, ("  peak: ", "  loud: "))
    before = desk.store_state()
    assert run_after(desk) == ({"loud": 2}, ["loud.h5"])
    assert desk.store_state()["peak.h5"] == before["peak.h5"], "the old name's file still fits the index"
    lengthen(desk, 1)
    result = desk.run()
    assert (result["computed"], result["removed"]) == ({}, ["peak.h5"]), "and goes when it does not"
    assert not (desk.store / "peak.h5").exists()


@pytest.mark.parametrize(
    ("module", "computed", "files"),
    [
        (video, {"timeline": 2, "audio": 2, "crops": 2, "colour": 2, "mfcc39": 2, "peak": 2}, FEATURES),
        (sound, {"audio": 2, "mfcc39": 2, "peak": 2}, AUDIO),
    ],
    ids=["pyav", "ffmpeg"],
)
def test_another_decoder_runs_what_it_decodes_for(
    module: Any, computed: dict[str, int], files: list[str], desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sound's stream, start and gaps are found by the pictures' decoder. The same rows leave the index as it is."""
    monkeypatch.setattr(module, "decoder_version", lambda: "another 1.0")
    found = desk.here("why", "--json", arguments=["106", "peak"]).json["changed"]
    assert list(found) == ["audio.stage.decoder"]
    assert run_after(desk) == (computed, sorted(files))


def test_forcing_brings_what_the_code_gives_now(desk: Any, plugin: Any, tmp_path: Path) -> None:
    """Under the same version no key tells that the code changed: only who forces it gets the new values, and all of them."""
    before = values_of(desk, "colour")
    plugin.write(value=2.0)
    assert run_after(desk) == ({}, []), "nothing but the code's version is asked"
    assert run_after(desk, "--force", "colour") == ({"colour": 2}, VISUAL)
    np.testing.assert_array_equal(values_of(desk, "colour"), before * 2)
    assert run_after(desk) == ({}, [])
    assert_as_fresh(desk, tmp_path / "fresh")
    assert run_after(desk, "--force", "colour") == ({"colour": 2}, []), "the same bits again"


@pytest.mark.parametrize("only", [(), ("--only", "audio"), ("--only", "peak")], ids=["all", "only_itself", "only_one_reader"])
def test_forcing_an_input_brings_what_reads_it(only: tuple[str, ...], desk: Any, plugin: Any, tmp_path: Path) -> None:
    """And does so where not all that reads it is asked for: what is in the cache afterwards is of the new sound, or is computed
    by the next run."""
    edit(desk, ("{use: waveform}", f"{{use: {plugin.use('Gain')}}}"))
    desk.run()
    before = values_of(desk, "peak")
    plugin.write(value=0.5)
    desk.run("--force", "audio", *only)
    desk.run()
    after = values_of(desk, "peak")
    np.testing.assert_array_equal(after, before / 2)
    assert (before > 0).any()
    anew = replace(desk, cache=tmp_path / "empty", store=tmp_path / "anew")
    anew.run()
    for name in ("peak", "mfcc39"):
        np.testing.assert_array_equal(values_of(desk, name), values_of(anew, name))


def test_forcing_the_timeline_brings_its_new_rows(desk: Any, plugin: Any) -> None:
    edit(desk, ("{use: timeline, rate_hz: native}", f"{{use: {plugin.use('Clock')}}}"), ("rows: labels", "rows: timeline"))
    desk.run()
    with h5py.File(desk.store / "index.h5") as index:
        before_s = index["times_s"][:]
    plugin.write(value=0.5)
    assert run_after(desk, "--force", "timeline")[1] == sorted(FEATURES + INDEX)
    with h5py.File(desk.store / "index.h5") as index:
        np.testing.assert_array_equal(index["times_s"][:], before_s / 2)


def test_a_stage_that_fails_everywhere_leaves_no_old_feature(desk: Any, plugin: Any) -> None:
    """Its old file has the index's rows, so that a reader would take it for what the stages file says."""
    plugin.write(refuse=True)
    edit(desk, ("from: crops}", "from: crops, scale: 2.0}"))
    before = desk.store_state()
    result = desk.run(status=1)
    assert (result["computed"], result["written"], result["removed"]) == ({}, [], ["colour.h5"])
    assert {row["trial"]: row["stage"] for row in result["failures"]} == dict.fromkeys(CLIPS, "colour")
    assert changed(before, desk.store_state()) == VISUAL
    assert not (desk.store / "colour.h5").exists()
    plugin.write()
    assert run_after(desk, "--retry-failed") == ({"colour": 2}, VISUAL)


@pytest.mark.parametrize("lost", [["peak.h5"], ["peak.h5", "colour.h5"]], ids=["the_one", "another_too"])
def test_only_writes_what_is_missing_from_the_store(lost: list[str], desk: Any) -> None:
    """As after a kill between the index and its features: all is in the cache, and the store is made whole."""
    expected = desk.store_data()
    for name in lost:
        (desk.store / name).unlink()
    assert run_after(desk, "--only", "peak") == ({}, sorted(lost))
    data = desk.store_data()
    assert [name for name in expected if data[name].tobytes() != expected[name].tobytes()] == []


def test_only_with_other_rows_writes_all_that_were_there(desk: Any, tmp_path: Path) -> None:
    lengthen(desk, 1)
    assert run_after(desk, "--only", "peak") == ({}, sorted(FEATURES + INDEX))
    assert_as_fresh(desk, tmp_path / "fresh")


def test_a_stored_artifact_s_rows_are_the_store_s(desk: Any) -> None:
    """That "fresh" above is not wrong in the same way: nearest rows, straight from the artifacts."""
    track = artifact.read_track(desk.tracks("mfcc39")["106"])
    with h5py.File(desk.store / "index.h5") as index:
        start, stop = index["offsets"][:2]
        times_s = index["times_s"][start:stop]
    off = np.abs(track.times_s[None] - times_s[:, None])
    near = off.min(axis=1) <= 0.005
    values = values_of(desk, "mfcc39")[start:stop]
    assert near.sum() > 30
    np.testing.assert_array_equal(values[near], track.values[off.argmin(axis=1)][near])
