"""Weights as a saved model's folder, and pickles of whole networks: what is read of them, and that nothing of them runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from extractors.contract import ExtractorError
from extractors.weights import facts, load_state

RAN: list[str] = []


class Watched(nn.Linear):
    """A module whose code says when it runs."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        RAN.append("__setstate__")
        super().__setstate__(state)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        RAN.append("state_dict")
        return dict(super().state_dict(*args, **kwargs))


NAME = f"{__name__}.Watched"
PARTS = ("torch.nn.modules.container.Sequential", "torch.nn.modules.batchnorm.BatchNorm2d", "builtins.set")


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, sys.modules[Watched.__module__]))
    torch.save(nn.Sequential(Watched(3, 2), nn.BatchNorm2d(2)), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def test_a_pickled_network_is_read_without_its_code(whole: Path) -> None:
    RAN.clear()
    state = load_state(whole, classes=(NAME, *PARTS))
    assert RAN == []
    assert list(state) == [f"0.{name}" for name in ("weight", "bias")] + [
        f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    ]
    theirs = torch.load(whole, weights_only=False)
    assert RAN == ["__setstate__"]
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in state.items() if key.startswith("1."))


def test_a_class_that_is_not_listed_is_refused_by_name(whole: Path) -> None:
    with pytest.raises(ExtractorError, match=rf"net\.pt cannot be loaded: .*executed \(.*{re.escape(NAME)}"):
        load_state(whole, classes=PARTS)
    with pytest.raises(ExtractorError, match=r"net\.pt cannot be loaded: .*executed"):
        load_state(whole)


def test_a_module_without_its_parts_is_damaged(tmp_path: Path) -> None:
    network = nn.BatchNorm2d(2)
    del network.__dict__["_buffers"]
    torch.save(network, tmp_path / "net.pt")
    with pytest.raises(ExtractorError, match=r"net\.pt cannot be loaded: AttributeError: .*; fetch it again: it is damaged"):
        load_state(tmp_path / "net.pt", classes=PARTS)


def test_a_folder_gives_its_tensors(tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match=r"cannot be loaded: it holds neither model\.safetensors nor pytorch_model\.bin; give"):
        load_state(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert load_state(tmp_path)["a"].item() == 0
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert load_state(tmp_path)["a"].item() == 1, "safetensors first"


def test_what_a_folder_says_of_itself(tmp_path: Path) -> None:
    assert facts(tmp_path, "config.json") == {}
    path = tmp_path / "config.json"
    path.write_text('{"patch_size": 16}')
    assert facts(tmp_path, "config.json") == {"patch_size": 16}
    for text, why in (("{", "Expecting property name"), ("[1]", "it holds a list, not an object")):
        path.write_text(text)
        with pytest.raises(ExtractorError, match=rf"config\.json cannot be loaded: {why}.*; fetch it again"):
            facts(tmp_path, "config.json")
