"""`weights: hub` through the command line: without a network it is one error per trial and nothing is lost; with the files it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extractors.hub import SavedModel

REVISION = "0123456789abcdef0123456789abcdef01234567"
STAGES = f"""\
version: 1
stages:
  timeline: {{use: timeline}}
  crops:    {{use: folder, root: crops}}
  vit:      {{use: "hf:me/vit", from: crops, weights: hub, revision: "{REVISION}"}}
  onet:     {{use: onet, from: crops}}
store: {{rows: timeline, dtype: float32}}
"""


@pytest.fixture
def without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small vision transformer's folder."""
    import transformers

    kinds = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32}
    transformers.ViTModel(transformers.ViTConfig(**kinds, patch_size=8)).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


@pytest.mark.usefixtures("without_network")
def test_a_run_without_network_names_it_and_the_next_run_goes_on(
    some_clips: Callable[..., Any],
    new_desk: Callable[..., Any],
    write_crops: Callable[..., None],
    saved: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos, _ = some_clips("106")
    desk = new_desk(videos, stages=STAGES)
    write_crops(desk.stages.parent / "crops" / "106", (0, 3, 4))
    assert desk.here("plan", "--json").json["run"] == 4, "planning asks no network"
    result = desk.run(status=1)
    assert result["computed"] == {"timeline": 1, "crops": 1, "onet": 1}
    failure = desk.failures()["106"]
    assert (failure["stage"], failure["where"]) == ("vit", "stages.vit.weights")
    assert failure["what"] == f"weights of https://huggingface.co/me/vit at revision {REVISION} cannot be fetched"
    assert failure["why"].startswith("there is no connection to it, and no copy in its cache")
    assert failure["fix"].endswith("or put the file or folder into a weights folder and give its name as 'weights'")
    assert not list(desk.cache.rglob("*.failed.json")), "it may pass, so it is tried again"
    monkeypatch.setattr(SavedModel, "fetch", lambda source, revision: saved)
    assert desk.run()["computed"] == {"vit": 1}
    assert desk.run()["computed"] == {}
    found = desk.here("why", "--json", arguments=["106", "vit"]).json
    assert found["parts"]["stage"]["weights"] == f"hub:me/vit@{REVISION}"
    assert desk.store_data()["vit/values"].shape[1] == 32
    desk.write_stages(STAGES.replace(REVISION, "f" * 40))
    changed = desk.here("why", "--json", arguments=["106", "vit"]).json["changed"]
    assert list(changed) == ["stage.weights"]
    desk.write_stages(STAGES.replace(f'weights: hub, revision: "{REVISION}"', "weights: vit"))
    assert desk.run("--weights", saved.parent)["computed"] == {"vit": 1}, "a folder has its digest in the key, not its origin"


@pytest.mark.usefixtures("without_network")
def test_doctor_names_what_is_fetched(some_clips: Callable[..., Any], new_desk: Callable[..., Any]) -> None:
    desk = new_desk(some_clips("106")[0], stages=STAGES)
    (desk.stages.parent / "crops").mkdir()
    machine = {entry["what"]: entry["is"] for entry in desk.here("doctor", "--json").json["machine"]}
    assert machine["weights"] == f"vit: hub:me/vit@{REVISION}, fetched when it runs"
