"""Another person, track or form of crop is chosen among the faces that were found already, and comes out as if found anew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from extractors.face.mtcnn import Mtcnn

STAGES = """\
version: 1
stages:
  timeline: {{use: timeline, rate_hz: native}}
  faces:    {{use: mtcnn, from: timeline{faces}}}
{more}"""
CHOICES = {
    "person": ", person: right",
    "track": ", track: 1",
    "track length": ", min_track_s: 99",
    "template": ", template: box, margin: 0.3",
    "crop": ", size_px: 64, coding: raw",
    "quality": ", jpeg_quality: 60",
}


def stages(faces: str = "", more: str = "") -> str:
    return STAGES.format(faces=faces, more=more)


@pytest.fixture
def desk(some_clips: Callable[..., Any], new_desk: Callable[..., Any]) -> Any:
    """Two people in one clip, both asked for by the labels; run once."""
    made = new_desk(*some_clips("video5"), stages=stages())
    made.run()
    return made


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one each time faces are found in a video."""
    found: list[int] = []
    follow = Mtcnn.follow

    def counted(self: Mtcnn, *given: Any) -> Any:
        found.append(1)
        return follow(self, *given)

    monkeypatch.setattr(Mtcnn, "follow", counted)
    return found


def tracks(desk: Any, stage: str, choice: dict[str, Any]) -> dict[str, tuple[str, bytes]]:
    """Per trial of the artifacts with these parameters: their data's digest, and what they say of the faces they chose from."""
    found = {}
    for path in sorted((desk.cache / stage).rglob("*.h5")):
        with h5py.File(path) as file:
            params = json.loads(file.attrs["params"])
            if choice.items() <= params.items():
                found[str(file.attrs["trial"])] = (str(file.attrs["data"]), str(file.attrs["finding"]))
    return found


def fresh(desk: Any, root: Path) -> Any:
    made = replace(desk, cache=root / "cache", store=root / "store")
    made.run(status=desk.here("run").status)
    return made


def chosen(text: str) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(f"{{{text.removeprefix(', ')}}}"))


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_needs_no_finding(name: str, desk: Any, finds: list[int], tmp_path: Path) -> None:
    desk.write_stages(stages(CHOICES[name]))
    assert desk.run()["computed"] == {"faces": 1 if name == "person" else 2}
    assert finds == []
    choice = chosen(CHOICES[name])
    got, expected = (tracks(one, "faces", choice) for one in (desk, fresh(desk, tmp_path / "fresh")))
    assert len(finds) == 1
    assert got == expected
    assert len(got) in (1, 2)


def test_what_is_found_depends_on_the_rest(desk: Any, finds: list[int]) -> None:
    others = (", min_prob: 0.95", ", mode: exact", ", redetect_s: 0.5", ", search_s: 0.1", ", min_face_px: 60", ", precision: bfloat16")
    for number, text in enumerate(others, 1):
        desk.write_stages(stages(text))
        desk.run()
        assert len(finds) == number
    desk.write_stages(stages(CHOICES["crop"]).replace("native", "12.5"))
    desk.run()
    assert len(finds) == len(others) + 1


def test_no_video_takes_another_s_faces(desk: Any, finds: list[int], sample: Any) -> None:
    other = next(path for path in sample.videos.iterdir() if path.stem != "video5")
    shutil.copy(other, desk.videos)
    desk.write_stages(stages(CHOICES["crop"]))
    desk.run()
    assert finds == [1]


def test_the_stage_s_name_does_not_matter(desk: Any, finds: list[int]) -> None:
    desk.write_stages(stages(CHOICES["crop"]).replace("faces:", "people:"))
    planned = {entry["stage"]: entry["reasons"] for entry in desk.here("plan", "--json").json["stages"]}
    assert planned["people"] == {"never computed, its faces are known": 2}
    assert desk.run()["computed"] == {"people": 2}
    assert finds == []


def test_a_first_stage_that_fails_does_not_keep_the_others_from_sharing(desk: Any, finds: list[int]) -> None:
    more = "".join(f"  size{n}: {{use: mtcnn, from: timeline, min_prob: 0.8, size_px: {n}}}\n" for n in (48, 64, 80))
    desk.write_stages(stages(", min_prob: 0.8, track: 99", more))
    assert desk.run(status=1)["computed"] == {"size48": 2, "size64": 2, "size80": 2}
    assert finds == [1, 1]


def test_two_stages_find_once(desk: Any, finds: list[int], tmp_path: Path) -> None:
    desk.write_stages(
        stages(more="  small: {use: mtcnn, from: timeline, size_px: 48}\n  large: {use: mtcnn, from: timeline, size_px: 160}\n")
    )
    assert desk.run()["computed"] == {"small": 2, "large": 2}
    assert finds == []
    again = fresh(desk, tmp_path / "fresh")
    assert finds == [1]
    for stage in ("small", "large"):
        assert tracks(desk, stage, {}) == tracks(again, stage, {})


@pytest.mark.parametrize("lost", ["removed", "damaged", "damaged in secret"])
def test_what_was_found_is_lost(lost: str, desk: Any, finds: list[int], tmp_path: Path) -> None:
    for path in (desk.cache / "faces").rglob("*.h5"):
        if lost == "removed":
            path.unlink()
        elif lost == "damaged":
            path.write_bytes(path.read_bytes()[:-100] + bytes(100))
        else:
            damage_a_landmark(path)
    desk.write_stages(stages(CHOICES["crop"]))
    desk.run()
    assert finds == [1]
    assert tracks(desk, "faces", {"size_px": 64}) == tracks(fresh(desk, tmp_path / "fresh"), "faces", {"size_px": 64})


def damage_a_landmark(path: Path) -> None:
    """Without a trace but in the checksum: size, time and inode stay."""
    before = path.stat()
    with h5py.File(path, "r+") as file:
        file["found/landmarks"][0, 0, 0] += 1
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_forcing_finds_again(desk: Any, finds: list[int]) -> None:
    desk.run("--force", "faces")
    assert finds == [1]


def test_an_unknown_track_is_one_clear_failure(desk: Any, finds: list[int]) -> None:
    desk.write_stages(stages(", track: 99"))
    desk.run(status=1)
    assert finds == []
    assert "there is no track 99" in str(desk.failures())


def test_what_could_not_be_found_anew_is_not_taken_from_before(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Mtcnn, *given: Any) -> Any:
        raise OSError("no room")

    monkeypatch.setattr(Mtcnn, "follow", fails)
    desk.write_stages(stages(more="  small: {use: mtcnn, from: timeline, size_px: 48}\n"))
    assert desk.run("--force", "faces", "--force", "small", status=1)["computed"] == {}
