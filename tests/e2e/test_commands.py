"""The other commands and the options of `run`, on data that is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from pipeline.cache import Cache
from pipeline.store import StoreError, open_store

WITHOUT_MFCC = "  mfcc39:   {use: mfcc39, from: audio}\n"


def test_only_computes_a_stage_and_what_it_needs(
    sample: Any, some_clips: Callable[..., Any], new_desk: Callable[..., Any], assert_same_data: Callable[..., None]
) -> None:
    """And the row axis, without which there is no store."""
    desk = new_desk(*some_clips("106"))
    planned = desk.here("plan", "--json", "--only", "mfcc39").json
    assert {row["stage"]: row["run"] for row in planned["stages"]} == {"timeline": 1, "audio": 1, "logmel": 0, "mfcc39": 1}
    result = desk.run("--only", "mfcc39")
    assert result["computed"] == {"timeline": 1, "audio": 1, "mfcc39": 1}
    assert sorted(result["written"]) == ["index.h5", "mfcc39.h5"]
    before = desk.store_state()
    result = desk.run()
    assert (result["computed"], result["written"]) == ({"logmel": 1}, ["logmel.h5"])
    assert {name: state for name, state in desk.store_state().items() if name != "logmel.h5"} == before


def test_force_computes_again(some_clips: Callable[..., Any], new_desk: Callable[..., Any], assert_same_data: Callable[..., None]) -> None:
    desk = new_desk(*some_clips("106"))
    desk.run()
    before, artifact = desk.store_state(), desk.tracks("mfcc39")["106"]
    inode, data = artifact.stat().st_ino, desk.store_data()
    plan = desk.here("plan", "--json", "--force", "mfcc39").json
    assert {row["stage"]: row["reasons"] for row in plan["stages"] if row["run"]} == {"mfcc39": {"forced": 1}}
    result = desk.run("--force", "mfcc39")
    assert (result["computed"], result["written"]) == ({"mfcc39": 1}, []), "the same track again, so the store stays"
    assert artifact.stat().st_ino != inode
    assert desk.store_state() == before
    assert_same_data(desk.store_data(), data)


def test_plan_runs_nothing_and_says_why(sample: Any, new_desk: Callable[..., Any], light: Any, copied: Callable[..., Any]) -> None:
    fresh = new_desk(sample.videos, sample.labels)
    summary = fresh.here("plan", "--json").json
    assert (summary["trials"], summary["sources"], summary["run"], summary["estimate_s"]) == (9, 8, 32, None)
    assert all(row["reasons"] == {"never computed": 8} for row in summary["stages"])
    assert not list(fresh.cache.rglob("*.h5"))
    assert not fresh.store.exists()
    done = copied(light).here("plan", "--json").json
    assert (done["run"], done["estimate_s"]) == (0, 0.0)
    assert "nothing has to run" in light.here("plan").out


def test_status_counts(light: Any) -> None:
    found = light.here("status", "--json").json
    rows = {row["stage"]: row for row in found["stages"]}
    assert rows.keys() == {"timeline", "audio", "logmel", "mfcc39"}
    for stage, row in rows.items():
        files = [path for _, _, path in Cache(light.cache).artifacts(stage)]
        assert (row["done"], row["missing"], row["failed"]) == (8, 0, 0)
        assert row["bytes"] == sum(path.stat().st_size for path in files)
        assert row["code_changed"] is False
    assert found["licences"] == ["MIT"]
    assert "licences in use: MIT" in light.here("status").out


def test_doctor_finds_what_is_special(sample: Any, light: Any) -> None:
    done = light.here("doctor", "--json")
    rows = {row["trial"]: row for row in done.json["trials"]}
    assert done.status == 0, done.err
    for name, clip in sample.clips.items():
        for trial in clip["trials"]:
            assert rows[trial]["n_frames_decoded"] == clip["n_frames"]
            assert rows[trial]["n_labelled_rows"] == {"va": clip["n_frames"]}
            assert rows[trial]["variable_rate"] == (clip["kind"] == "variable_rate")
            assert ("no audio stream: audio features will be masked" in rows[trial]["findings"]) == (clip["audio"] is None), name
    assert rows["video44_2"]["sound_from_s"] == pytest.approx(0.6, abs=0.03), "an audio packet is 21 ms"
    assert any("the sound starts" in finding for finding in rows["video44_2"]["findings"])
    assert any("the first picture is at 0.500 s" in finding for finding in rows["318-24-416x304"]["findings"])
    assert rows["video5_left"]["person"] == "left"
    assert {entry["what"]: entry["ok"] for entry in done.json["machine"]} == {"decoder": True, "ffmpeg": True, "GPU": True, "weights": True}


def test_inspect_tells_a_file_s_story(light: Any, command_line: Callable[..., Any]) -> None:
    path = light.tracks("logmel")["106"]
    story = command_line("inspect", path, "--json").json
    attributes = story["attributes"]
    assert story["whole"] is True
    assert (attributes["format"], attributes["key"], attributes["trial"]) == ("affectpipe/track", path.stem, "106")
    assert (attributes["extractor"], attributes["extractor_version"], attributes["licence"]) == ("logmel", 1, "MIT")
    assert story["datasets"]["values"].startswith("(")
    store = command_line("inspect", light.store, "--json").json
    assert (store["n_trials"], sorted(store["features"])) == (9, ["logmel", "mfcc39"])
    assert all(feature["fits_index"] for feature in store["features"].values())
    refused = command_line("inspect", light.stages)
    assert (refused.status, "Traceback" in refused.err) == (2, False)
    assert "stages.yaml: cannot be inspected: " in refused.err


def test_inspect_takes_text_for_text(
    some_clips: Callable[..., Any], new_desk: Callable[..., Any], command_line: Callable[..., Any]
) -> None:
    """A trial's name may look like JSON."""
    desk = new_desk(some_clips("106")[0])
    (desk.videos / "106.mp4").rename(desk.videos / "[106] take.mp4")
    desk.run()
    story = command_line("inspect", desk.tracks("logmel")["[106] take"], "--json").json
    assert (story["attributes"]["trial"], story["attributes"]["warnings"]) == ("[106] take", [])
    assert isinstance(story["attributes"]["identity"], dict)
    for name in ("index", "logmel"):
        assert command_line("inspect", desk.store / f"{name}.h5", "--json").json["attributes"]["format"].startswith("affectpipe/")


def test_a_store_s_folder_may_hold_other_files(light: Any, copied: Callable[..., Any], command_line: Callable[..., Any]) -> None:
    desk = copied(light)
    with h5py.File(desk.store / "notes.h5", "w") as file:
        file["mine"] = [1, 2, 3]
    (desk.store / "mfcc39.h5").write_bytes(b"not HDF5")
    done = command_line("inspect", desk.store, "--json")
    assert (done.status, sorted(done.json["features"]), done.json["damaged"]) == (0, ["logmel"], ["mfcc39"])
    with pytest.raises(StoreError, match=r"mfcc39\.h5: feature 'mfcc39' is damaged"):
        open_store(desk.store).read("mfcc39")


def test_gc_lists_before_it_deletes(light: Any, copied: Callable[..., Any], tmp_path: Path) -> None:
    desk = copied(light)
    text = desk.stages.read_text(encoding="utf-8")
    other = tmp_path / "with_mfcc.yaml"
    other.write_text(text, encoding="utf-8")
    desk.write_stages(text.replace(WITHOUT_MFCC, ""))
    unneeded = sorted(str(path) for path in desk.tracks("mfcc39").values())
    assert desk.here("gc", "--json", "--also-stages", other).json["paths"] == []
    dry = desk.here("gc", "--json").json
    assert (sorted(dry["paths"]), dry["deleted"]) == (unneeded, False)
    assert all(Path(path).exists() for path in unneeded)
    assert desk.here("gc", "--json", "--delete").json["deleted"] is True
    assert desk.tracks("mfcc39") == {}
    assert desk.run()["computed"] == {}
    desk.write_stages(text)
    assert desk.run()["computed"] == {"mfcc39": 8}


def test_verify_of_a_sound_cache(light: Any, command_line: Callable[..., Any]) -> None:
    done = command_line("verify", "--cache", light.cache, "--store", light.store)
    assert (done.status, done.out) == (0, f"{4 * 8 + 3} files checked, 0 damaged\n")


def test_a_dropped_stage_and_a_dropped_trial_leave_the_store_right(
    sample: Any,
    light: Any,
    copied: Callable[..., Any],
    some_clips: Callable[..., Any],
    assert_same_data: Callable[..., None],
    new_desk: Callable[..., Any],
) -> None:
    """Fewer trials are another row axis: every file is of it, none of the old."""
    videos, labels = some_clips("106", "207")
    desk = replace(copied(light), videos=videos, labels=labels)
    desk.write_stages(desk.stages.read_text(encoding="utf-8").replace(WITHOUT_MFCC, ""))
    result = desk.run()
    assert (result["computed"], sorted(result["written"]), result["removed"]) == ({}, ["index.h5", "logmel.h5"], ["mfcc39.h5"])
    fresh = replace(desk, store=desk.store.with_name("fresh"))
    fresh.run()
    assert_same_data(desk.store_data(), fresh.store_data())


@pytest.mark.parametrize(("command", "said"), [("doctor", "examining 9/9 trials"), ("verify", f"checking {4 * 8 + 3}/{4 * 8 + 3} files")])
def test_who_waits_at_a_terminal_sees_how_far_it_is(light: Any, command_path: Path, command: str, said: str) -> None:
    words = light.argv("doctor") if command == "doctor" else ["verify", "--cache", str(light.cache), "--store", str(light.store)]
    master, slave = os.openpty()
    with os.fdopen(master, "rb", buffering=0) as terminal:
        done = subprocess.run([command_path, *words], stdout=subprocess.PIPE, stderr=slave, timeout=120, check=True)
        os.close(slave)
        told = terminal.read(4096).decode()
    assert said in told
    assert b"examining" not in done.stdout
    assert b"checking" not in done.stdout
