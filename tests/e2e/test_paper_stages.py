"""The stages files of the five papers, whole, on sample clips and real ones, with pseudo-random weights in the published layouts."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
import torch
import yaml

from pipeline.sound import ffmpeg_binary

REPOSITORY = Path(__file__).resolve().parents[2]
# Per stages file the features and their dimensions, as the networks (not always the papers' texts) have them.
DIMENSIONS = {
    "yu_va": {"iresnet": 512, "vggish": 128, "mfcc39": 39},
    "nguyen": {"regnet": 440},
    "zhou": {"wav2vec2": 1024, "arcface": 512, "efficientnet": 1408, "dan_rafdb": 512, "dan_affectnet": 512},
    "yu_emi": {"resnet18": 512, "openface": 34, "dino": 384, "wav2vec2": 1024},
    "praveen_rja": {"clips": 512, "spectrogram": 512},
}
SAMPLES, MEDIA = ("106", "207", "video5"), ("speech_512.mp4", "crying_640.mp4", "single_face.mp4")
SILENT = "207"
CUT_S = 0.4
UNSEEN = 3  # the organisers have no picture of this source frame
SHALLOW = {"hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 16, "intermediate_size": 64}
OPENFACE = """#!{python}
import pathlib, sys
import av
source, folder = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[4])
with av.open(str(source)) as container:
    n = sum(1 for _ in container.decode(video=0))
units = {units!r}
lines = [", ".join(["frame", "face_id", "timestamp", "confidence", "success", *units])]
lines += [", ".join(map(str, [i + 1, 0, i / 25, 0.98, 1] + [1] * len(units))) for i in range(n)]
(folder / f"{{source.stem}}.csv").write_text("\\n".join(lines))
"""


@pytest.fixture(scope="module")
def golden() -> Any:
    spec = importlib.util.spec_from_file_location("make_outputs", REPOSITORY / "tests" / "golden" / "make_outputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def videos(sample: Any, media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of the sample and three real ones, of which the first 0.4 s are enough."""
    folder = tmp_path_factory.mktemp("clips")
    for path in (*(sample.videos / f"{name}.mp4" for name in SAMPLES), *(media / name for name in MEDIA)):
        argv = [ffmpeg_binary(), "-nostdin", "-v", "error", "-i", path, "-t", str(CUT_S), "-c:v", "mpeg4", "-q:v", "3", folder / path.name]
        subprocess.run(argv, check=True)
    return folder


@pytest.fixture
def weights(golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any]], Path]]:
    """weights(stages): a folder with every file that they name."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setitem(golden.FOLDERS, "wav2vec2_emotion", golden.FOLDERS["wav2vec2_emotion"] | SHALLOW)

    def make(stages: dict[str, Any]) -> Path:
        for stage in stages.values():
            name = stage.get("weights", "")
            if name == "TSAV_Sub4_544k.pth.tar":
                torch.save({"state_dict": tsav(golden, tmp_path)}, folder / name)
            elif name and not (folder / name).exists():
                shutil.move(golden.weight_file(stage["use"], tmp_path), folder / name)
        return folder

    yield make
    shutil.rmtree(folder)  # half a gigabyte, which pytest would keep for three runs


def tsav(golden: Any, folder: Path) -> dict[str, Any]:
    """Both networks of the checkpoint under its names, the video's stem with its fourth channel."""
    from safetensors.torch import load_file

    video, audio = (load_file(golden.weight_file(use, folder)) for use in ("r2plus1d18", "spectrogram_resnet18"))
    stem = video["stem.0.weight"]
    video["stem.0.weight"] = torch.cat([stem, torch.ones_like(stem[:, :1])], dim=1)
    found = {f"video_model.r2plus1d.{key}": value for key, value in video.items()}
    return found | {f"audio_model.resnet.{key}": value for key, value in audio.items()} | {"fc.1.weight": torch.zeros(2, 1024)}


@pytest.fixture
def openface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extractors.visual.openface import ALL

    path = tmp_path / "FeatureExtraction"
    path.write_text(OPENFACE.format(python=sys.executable, units=ALL[:-1]))
    path.chmod(0o755)
    monkeypatch.setenv("OPENFACE", str(path))


@pytest.fixture
def desk(name: str, videos: Path, new_desk: Callable[..., Any], write_crops: Callable[..., None], tmp_path: Path) -> Any:
    for video in videos.iterdir():
        write_crops(tmp_path / "cropped_aligned" / video.stem, [i for i in range(40) if i != UNSEEN])
    return new_desk(videos, stages=(REPOSITORY / "stages" / f"{name}.yaml").read_text(encoding="utf-8"))


def n_frames(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.slow
@pytest.mark.usefixtures("openface")
@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_paper_s_stages_run_whole(name: str, desk: Any, videos: Path, weights: Callable[..., Path]) -> None:
    """Every feature has its dimension, on the same rows; what the licences are, `status` says."""
    stages = yaml.safe_load(desk.stages.read_text())["stages"]
    folder = weights(stages)
    result = desk.run("--weights", folder)
    assert [line for line in result["failures"] if line["severity"] == "error"] == []
    with h5py.File(desk.store / "index.h5") as index:
        trials, offsets, frame = index["trials"].asstr()[:].tolist(), index["offsets"][:], index["frame"][:]
    assert trials == sorted(video.stem for video in videos.iterdir())
    if stages["timeline"]["rate_hz"] == "native":
        assert np.diff(offsets).tolist() == [n_frames(videos / f"{trial}.mp4") for trial in trials]
    assert {path.stem for path in desk.store.glob("*.h5")} == {"index", *DIMENSIONS[name]}
    for feature, dim in DIMENSIONS[name].items():
        with h5py.File(desk.store / f"{feature}.h5") as file:
            values, valid = file["values"][:], file["valid"][:]
        assert values.shape == (offsets[-1], dim), feature
        silent = slice(*offsets[trials.index(SILENT) : trials.index(SILENT) + 2])
        assert np.delete(valid, np.arange(len(valid))[silent]).mean() > 0.8, feature
        assert valid[silent].any() == (stages[feature]["from"] in ("faces", "timeline")), feature
        assert np.isfinite(values[valid]).all()
        if stages[feature].get("from") == "faces" and stages["faces"]["use"] == "folder":
            assert (valid == (frame != UNSEEN)).all(), feature
    licences = desk.here("status", "--json", "--weights", folder).json["licences"]
    assert licences
    assert all(licences)


@pytest.mark.parametrize("name", DIMENSIONS)
def test_all_that_is_missing_is_named_at_once(name: str, desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight files, the organisers' pictures and OpenFace, before anything is decoded."""
    monkeypatch.delenv("OPENFACE", raising=False)
    shutil.rmtree(tmp_path / "cropped_aligned")
    done = desk.here("run")
    assert done.status == 2
    stages = yaml.safe_load(desk.stages.read_text())["stages"]
    wanted = {stage["weights"] for stage in stages.values() if "weights" in stage}
    assert all(file in done.err for file in wanted)
    assert done.err.count("weight file missing") >= len(wanted)
    assert ("cropped_aligned" in done.err) == ("root" in stages["faces"])
    assert ("there is no FeatureExtraction" in done.err) == ("openface" in stages)
    assert not list(desk.cache.rglob("*.h5"))
