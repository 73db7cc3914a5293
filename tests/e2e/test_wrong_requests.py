"""What is wrong with the request itself: every problem at once, exit status 2, no traceback, and nothing is run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

MANY_FAULTS = """\
version: 2
stages:
  timeline: {use: timeline, rate_hz: fast}
  faces:    {use: mtcn, from: timeline}
  audio:    {use: waveform, rate_hz: 16001}
  logmel:   {use: logmel, from: adio}
  crops:    {use: mtcnn, from: timeline, min_fase_px: 40}
  onet:     {use: onet, from: crops, precision: float8}
  vggish:   {use: vggish, from: audio}
  arcface:  {use: iresnet50, from: crops, weights: ../secret.pth, sha256: abc}
  onet:     {use: onet, from: crops}
store:
  rows: lables
  align: {default: closest, logmell: mean}
  tolerance_rows: -1
colour: blue
"""
# (line, what is said), in the order of the file.
SAID = [
    (1, "version: must be 1, got 2"),
    (3, "stages.timeline.rate_hz:"),
    (4, "stages.faces.use: unknown extractor 'mtcn'; did you mean 'mtcnn'?"),
    (5, "stages.audio.rate_hz:"),
    (6, "stages.logmel.from: unknown stage 'adio'; did you mean 'audio'?"),
    (7, "stages.crops.min_fase_px: unknown key; did you mean 'min_face_px'?"),
    (8, "stages.onet.precision: onet cannot run in 'float8'"),
    (9, "stages.vggish: needs 'weights: FILE'"),
    (10, "stages.arcface.weights: must be a file name without folders"),
    (10, "stages.arcface.sha256: must be 64 hexadecimal digits"),
    (11, "stages.onet: given twice, first on line 8"),
    (13, "store.rows:"),
    (14, "store.align.default:"),
    (14, "store.align.logmell: unknown stage 'logmell'; did you mean 'logmel'?"),
    (15, "store.tolerance_rows: must not be negative"),
    (16, "colour: unknown key"),
]


def _lines(text: str) -> list[str]:
    return [line.removeprefix("error: ") for line in text.splitlines() if line.startswith("error: ")]


def test_every_fault_of_a_stages_file_is_told_at_once(sample: Any, new_desk: Callable[..., Any]) -> None:
    desk = new_desk(sample.videos, stages=MANY_FAULTS)
    done = desk.apart("run")
    assert (done.status, done.out, "Traceback" in done.err) == (2, "", False)
    lines = _lines(done.err)
    numbers = [int(line.split(":")[1]) for line in lines]
    assert numbers == sorted(numbers), "in the order of the file"
    for number, said in SAID:
        told = [line for line in lines if line.startswith(f"stages.yaml:{number}: ") and said in line]
        assert told, f"{number}: {said} not in\n{done.err}"
    assert {number for number, _ in SAID} == set(numbers)
    assert not desk.store.exists()
    assert not desk.cache.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nstages:\n  timeline: {use: timeline\n", r"stages\.yaml:\d: is not YAML: .*; mend the syntax there"),
        ("", r"stages\.yaml:1: a stages file is a mapping; start with 'version: 1' and 'stages:'"),
        ("version: 1\nstages: {}\n", r"stages\.yaml:2: stages: must map stage names to stages; .*"),
        ("version: 1\nstages:\n  audio: {use: waveform}\n", r"stages\.yaml:2: stages: there is no timeline; add 'timeline: .*"),
        (
            "version: 1\nstages:\n  a: {use: onet, from: b}\n  b: {use: onet, from: a}\n",
            r"stages\.yaml:3: stages\.a\.from: a cycle: a -> b -> a; .*",
        ),
        ("version: 1\nstages:\n  t: {use: os:system}\n", r"stages\.yaml:3: stages\.t\.use: os:system is not an extractor: it lacks .*"),
        (
            "version: 1\nstages:\n  t: {use: no.such:Thing}\n",
            r"stages\.yaml:3: stages\.t\.use: extractor 'no\.such:Thing' cannot be imported: .*",
        ),
    ],
    ids=["no YAML", "empty", "no stages", "no timeline", "cycle", "not an extractor", "no module"],
)
@pytest.mark.parametrize("command", ["run", "plan", "status", "doctor", "gc"])
def test_every_command_refuses_it(sample: Any, new_desk: Callable[..., Any], text: str, said: str, command: str) -> None:
    done = new_desk(sample.videos, stages=text).here(command)
    assert (done.status, done.out) == (2, "")
    assert [line for line in _lines(done.err) if re.fullmatch(said, line)], done.err


def test_all_missing_weights_are_named_before_anything_runs(sample: Any, new_desk: Callable[..., Any], tmp_path: Path) -> None:
    stages = """\
version: 1
stages:
  timeline: {use: timeline}
  faces:    {use: mtcnn}
  audio:    {use: waveform}
  arcface:  {use: iresnet50, from: faces, weights: r50.pth}
  vggish:   {use: vggish, from: audio, weights: vggish.pth}
"""
    desk = new_desk(sample.videos, stages=stages)
    done = desk.apart("run", "--weights", tmp_path / "mine")
    lines = _lines(done.err)
    assert (done.status, len(lines), "Traceback" in done.err) == (2, 2, False), done.err
    for line, place, file in zip(lines, ("6: stages.arcface", "7: stages.vggish"), ("r50.pth", "vggish.pth"), strict=True):
        assert line.startswith(f"stages.yaml:{place}.weights: weight file missing: ")
        assert all(word in line for word in (file, "origin: ", "licence: ", str(tmp_path / "mine"), "--weights DIR"))
    assert list(desk.cache.rglob("*.h5")) == []


def test_weights_of_another_sha256_are_refused(sample: Any, new_desk: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "r50.pth").write_bytes(b"something else")
    stages = f"""\
version: 1
stages:
  timeline: {{use: timeline}}
  faces:    {{use: mtcnn}}
  arcface:  {{use: iresnet50, weights: r50.pth, sha256: "{"0" * 64}"}}
"""
    done = new_desk(sample.videos, stages=stages).here("run", "--weights", tmp_path)
    assert done.status == 2
    assert re.search(r"r50\.pth is another file: sha256 is [0-9a-f]{64}, the stages file says 0{64}", done.err)


def test_folders_that_are_not_there(new_desk: Callable[..., Any], tmp_path: Path, sample: Any) -> None:
    (tmp_path / "empty").mkdir()
    for videos, labels, said in (
        (tmp_path / "nowhere", None, "nowhere: no videos: there is no such folder"),
        (tmp_path / "empty", None, "empty: no videos: no file in it ends in"),
        (sample.videos, tmp_path / "nowhere", "nowhere: the labels cannot be read: there is no such folder"),
        (sample.videos, tmp_path / "empty", "empty: no labels are recognised"),
    ):
        done = new_desk(videos, labels, name=f"desk_{len(list(tmp_path.iterdir()))}").here("run")
        assert (done.status, done.out) == (2, "")
        assert said in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "logmell"), "no stage 'logmell'; did you mean 'logmel'?"),
        (("--force", "nothing"), "no stage 'nothing'; stages: timeline, audio, logmel, mfcc39"),
        (("--task", "va"), ""),
        (("--colour",), "No such option"),
        (("--on", "moon"), "cannot work on 'moon'; known: inline, local, local:N, slurm, slurm:PROFILE, tcp://HOST:PORT"),
        (("--on", "local:0"), "a number of workers from 1 to 1024 comes after 'local:'"),
        (("--on", "local:x"), "cannot work on 'local:x'"),
        (("--on", "tcp://host"), "cannot work on 'tcp://host'"),
    ],
)
def test_options_that_mean_nothing(light: Any, words: tuple[str, ...], said: str) -> None:
    done = light.here("run", *words)
    assert said in done.err
    assert done.status == (2 if said else 0)


def test_why_wants_a_trial_and_a_stage_that_there_are(light: Any) -> None:
    for arguments, said in ((["video5_rigth", "logmel"], "did you mean 'video5_right'?"), (["106", "onet"], "no stage 'onet'")):
        done = light.here("why", arguments=arguments)
        assert (done.status, said in done.err) == (2, True), done.err


@pytest.mark.parametrize("option", ["store", "cache"])
def test_a_file_in_a_folder_s_place(light: Any, copied: Callable[..., Any], option: str) -> None:
    desk = copied(light)
    for place in (desk.stages, desk.stages / "below"):
        done = replace(desk, **{option: place}).here("run")
        assert (done.status, done.out) == (2, "")
        assert done.err == f"error: {place}: cannot be the {option}: {desk.stages} is no folder; name a folder with --{option}\n"


def test_verify_wants_what_there_is(light: Any, command_line: Callable[..., Any], tmp_path: Path) -> None:
    done = command_line("verify", "--cache", tmp_path / "nowhere", "--store", tmp_path / "none")
    assert (done.status, done.out) == (2, "")
    assert _lines(done.err) == [
        f"{tmp_path}/nowhere: no cache to check: there is no such folder; name it with --cache",
        f"{tmp_path}/none: no store to check: there is no such folder; name it with --store",
    ]
    assert not list(tmp_path.iterdir())


def test_a_device_is_checked_before_the_first_job(some_clips: Callable[..., Any], new_desk: Callable[..., Any]) -> None:
    desk = new_desk(some_clips("106")[0])
    done = desk.here("run", "--device", "gpu")
    assert (done.status, done.out) == (2, "")
    assert done.err == "error: --device: cannot compute on 'gpu': unknown device; known: cpu, auto, cuda, cuda:N\n"
    assert not desk.cache.exists()
