"""Never recomputed, never stale: what runs after a change is what the change decides, and nothing else of the store is touched."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ALL_FILES = ["egemaps.h5", "index.h5", "logmel.h5", "mfcc39.h5", "onet.h5"]


def _untouched(before: dict[str, Any], after: dict[str, Any], *but: str) -> None:
    """Every file but the named ones has its bytes and its time, and the named ones have not."""
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == set(but)


def test_the_whole_sample_runs(full: tuple[Any, Any], sample: Any) -> None:
    desk, done = full
    assert (done.status, "Traceback" in done.err) == (0, False), done.err
    result = done.json
    assert result["computed"] == {"timeline": 8, "faces": 9, "audio": 8, "onet": 9, "logmel": 8, "mfcc39": 8, "egemaps": 8}
    assert sorted(result["written"]) == ALL_FILES
    assert {name: row["severity"] for name, row in desk.failures().items()} == {"207": "warning"}, "only the clip without sound"


def test_nothing_runs_twice(full: tuple[Any, Any], copied: Callable[..., Any]) -> None:
    desk = copied(full[0])
    before = desk.store_state()
    for _ in range(2):
        result = desk.run()
        assert (result["computed"], result["written"], sorted(result["kept"])) == ({}, [], ALL_FILES)
    _untouched(before, desk.store_state())
    assert "nothing had to run" in desk.here("run").out


def test_a_parameter_of_an_audio_extractor_runs_it_alone(full: tuple[Any, Any], copied: Callable[..., Any], default_stages: str) -> None:
    desk = copied(full[0])
    before = desk.store_state()
    desk.write_stages(default_stages.replace("{use: egemaps_lld,", "{use: egemaps_lld, feature_set: eGeMAPSv01b,"))
    found = desk.here("why", "--json", arguments=["106", "egemaps"]).json
    assert found["changed"] == {"stage.params.feature_set": {"now": "eGeMAPSv01b", "before": "eGeMAPSv02"}}
    assert found["reason"] == "its stage changed"
    result = desk.run()
    assert (result["computed"], result["written"]) == ({"egemaps": 8}, ["egemaps.h5"])
    _untouched(before, desk.store_state(), "egemaps.h5")
    desk.write_stages(default_stages)
    result = desk.run()
    assert (result["computed"], result["written"]) == ({}, ["egemaps.h5"]), "the old tracks are still there"


def test_a_parameter_of_the_waveform_runs_all_sound_and_no_faces(light: Any, copied: Callable[..., Any]) -> None:
    desk = copied(light)
    before = desk.store_state()
    desk.write_stages(desk.stages.read_text(encoding="utf-8").replace("{use: waveform}", "{use: waveform, peak_dbfs: -3}"))
    found = desk.here("why", "--json", arguments=["106", "logmel"]).json
    assert found["changed"] == {"audio.stage.params.peak_dbfs": {"now": -3.0, "before": None}}
    assert found["reason"] == "an input is computed again"
    assert desk.run()["computed"] == {"audio": 8, "logmel": 8, "mfcc39": 8}
    _untouched(before, desk.store_state(), "logmel.h5", "mfcc39.h5")


def test_the_smallest_face_runs_faces_and_what_follows(
    full: tuple[Any, Any], copied: Callable[..., Any], some_clips: Callable[..., Any], default_stages: str
) -> None:
    """On one clip of the sample, whose tracks the cache knows already though it lies elsewhere now."""
    videos, labels = some_clips("106")
    desk = replace(copied(full[0]), videos=videos, labels=labels)
    assert desk.run()["computed"] == {}
    before = desk.store_state()
    desk.write_stages(default_stages.replace("min_face_px: 40", "min_face_px: 60"))
    for stage, part in (("faces", "stage"), ("onet", "faces.stage")):
        changed = desk.here("why", "--json", arguments=["106", stage]).json["changed"]
        assert changed == {f"{part}.params.min_face_px": {"now": 60, "before": 40}}
    assert desk.run()["computed"] == {"faces": 1, "onet": 1}
    _untouched(before, desk.store_state(), "onet.h5")


def test_touching_or_moving_a_video_runs_nothing(light: Any, copied: Callable[..., Any], some_clips: Callable[..., Any]) -> None:
    videos, labels = some_clips("106", "207")
    desk = replace(copied(light), videos=videos, labels=labels)
    assert desk.run()["computed"] == {}
    before = desk.store_state()
    os.utime(videos / "106.mp4")
    (videos / "deeper").mkdir()
    shutil.move(videos / "207.mp4", videos / "deeper" / "207.mp4")
    result = desk.run()
    assert (result["computed"], result["written"]) == ({}, [])
    shutil.copyfile(videos / "106.mp4", videos / "copy.mp4")
    (videos / "106.mp4").unlink()
    (videos / "copy.mp4").rename(videos / "106.mp4")
    result = desk.run()
    assert (result["computed"], result["written"]) == ({}, []), "other times and inodes, the same bytes"
    _untouched(before, desk.store_state())


def test_another_video_of_the_same_name_runs(light: Any, copied: Callable[..., Any], some_clips: Callable[..., Any], sample: Any) -> None:
    videos, _ = some_clips("106")
    desk = replace(copied(light), videos=videos, labels=None)
    assert desk.run()["computed"] == {}
    with (videos / "106.mp4").open("ab") as file:
        file.write(b"\0\0\0\x08free")  # an empty box at the end: the same pictures and sound in another file
    found = desk.here("why", "--json", arguments=["106", "timeline"]).json
    assert list(found["changed"]) == ["source"]
    before = desk.store_data()
    assert desk.run()["computed"] == {"timeline": 1, "audio": 1, "logmel": 1, "mfcc39": 1}
    after = desk.store_data()
    assert all((after[f"{name}/values"] == before[f"{name}/values"]).mean() > 0.9 for name in ("logmel", "mfcc39"))


@pytest.fixture(scope="module")
def weight_files(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders with an IResNet-50 checkpoint of the same name: pseudo-random, and the same but for one bias."""
    import torch

    spec = importlib.util.spec_from_file_location("parity_weights", parity / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    facts = json.loads((parity / "iresnet50.json").read_text(encoding="utf-8"))
    state = {name: torch.from_numpy(values) for name, values in rule.state_dict(facts["manifest"], facts["weights_rule"]["gain"]).items()}
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    torch.save(state, folders[0] / "r50.pt")
    state["features.bias"] += 1
    torch.save(state, folders[1] / "r50.pt")
    return folders


WITH_WEIGHTS = """\
version: 1
stages:
  timeline: {use: timeline}
  audio:    {use: waveform}
  crops:    {use: folder, root: crops}
  arcface:  {use: iresnet50, from: crops, weights: r50.pt}
  onet:     {use: onet, from: crops}
  logmel:   {use: logmel, from: audio}
store: {rows: timeline, dtype: float32}
"""


def test_another_weight_file_runs_its_extractor_alone(
    weight_files: tuple[Path, Path], some_clips: Callable[..., Any], new_desk: Callable[..., Any], write_crops: Callable[..., None]
) -> None:
    videos, _ = some_clips("106")
    desk = new_desk(videos, stages=WITH_WEIGHTS)
    write_crops(desk.stages.parent / "crops" / "106", (0, 3, 4))
    first = desk.run("--weights", weight_files[0])
    assert first["computed"] == {"timeline": 1, "audio": 1, "crops": 1, "arcface": 1, "onet": 1, "logmel": 1}
    before, values = desk.store_state(), desk.store_data()["arcface/values"]
    found = desk.here("why", "--json", "--weights", weight_files[1], arguments=["106", "arcface"]).json
    assert list(found["changed"]) == ["stage.weights"]
    assert desk.run("--weights", weight_files[1])["computed"] == {"arcface": 1}
    _untouched(before, desk.store_state(), "arcface.h5")
    # The bias is added after the last layer's normalisation's scaling, so every number differs.
    assert (desk.store_data()["arcface/values"][[0, 3, 4]] != values[[0, 3, 4]]).all()
    moved = desk.stages.parent / "weights"
    moved.mkdir()
    shutil.copy(weight_files[1] / "r50.pt", moved)
    assert desk.run()["computed"] == {}, "the same file in another folder, a default one"
