"""Checkpoints: what is written comes back to the bit; what is not one is refused, and runs nothing."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.checkpoint import FORMAT, Checkpoint, read_checkpoint, write_checkpoint
from trainer.errors import TrainerError

REFUSED = r"checkpoint.pt: no usable checkpoint: .+; remove it, and what it holds is trained again$"


def made() -> Checkpoint:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), 1e-3)
    layer(torch.randn(4, 3)).sum().backward()
    optimiser.step()
    history = [{"epoch": 1, "lr": 1e-3, "loss": 0.1 + 0.2, "value": None}]
    state = {"network": layer.state_dict(), "optimiser": optimiser.state_dict(), "history": history}
    best = {"value": -1e-300, "epoch": 1, "weights": {"x": torch.tensor([torch.nan, torch.inf, -0.0], dtype=torch.float16)}}
    made_for = {"name": "fold 0, model", "trials": ["1", "é"], "learner": "Learner(…)"}
    return Checkpoint(epoch=1, state=state, best=best, finished=False, made_for=made_for)


def same(a: Any, b: Any) -> bool:
    """To the bit, NaN included, and of one type."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pt"


def test_what_is_written_comes_back(path: Path) -> None:
    write_checkpoint(path, made())
    found, expected = read_checkpoint(path), made()
    assert found is not None
    assert all(same(getattr(found, name), getattr(expected, name)) for name in Checkpoint.__slots__)
    assert not same(found.state, {**expected.state, "history": []}), "what differs is told"
    assert [one.name for one in path.parent.iterdir()] == ["checkpoint.pt"], "nothing else is left"


def test_a_later_one_takes_its_place(path: Path) -> None:
    write_checkpoint(path, made())
    write_checkpoint(path, Checkpoint(epoch=2, state={}, best={}, finished=True, made_for={}))
    assert read_checkpoint(path) == Checkpoint(epoch=2, state={}, best={}, finished=True, made_for={})


def test_none(path: Path) -> None:
    assert read_checkpoint(path) is None


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("as_torch", [True, False])
def test_code_is_not_run(path: Path, as_torch: bool) -> None:
    trap = path.parent / "trap"
    said = {"format": FORMAT, "format_version": 1, "state": Hostile(trap)}
    if as_torch:
        torch.save(said, path)
    else:
        path.write_bytes(pickle.dumps(said))
    with pytest.raises(TrainerError, match=REFUSED):
        read_checkpoint(path)
    assert not trap.exists()
    with path.open("rb") as file:  # the trap is one
        torch.load(path, weights_only=False) if as_torch else pickle.load(file)
    assert trap.exists()


def test_a_damaged_one(path: Path) -> None:
    """Cut anywhere, and one that never was a checkpoint."""
    write_checkpoint(path, made())
    whole = path.read_bytes()
    for n in (0, 1, 2, 4, 100, len(whole) // 2, len(whole) - 23, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(TrainerError, match=REFUSED):
            read_checkpoint(path)
    path.write_text("epoch: 3\n")
    with pytest.raises(TrainerError, match=REFUSED):
        read_checkpoint(path)


def test_one_damaged_byte_of_a_weight(path: Path) -> None:
    """Which torch alone would read as another weight."""
    write_checkpoint(path, made())
    whole, weight = path.read_bytes(), made().state["network"]["weight"].numpy().tobytes()
    assert whole.count(weight) == 1
    at = whole.index(weight) + 5
    path.write_bytes(whole[:at] + bytes([255 - whole[at]]) + whole[at + 1 :])
    with pytest.raises(TrainerError, match=r"checkpoint.pt: no usable checkpoint: .*/data/0 is damaged; remove it, and what it holds is"):
        read_checkpoint(path)


def test_a_checkpoint_that_is_no_pickle(path: Path) -> None:
    """Whole by its checksums, and yet nothing that the unpickler can follow."""
    write_checkpoint(path, made())
    with zipfile.ZipFile(path) as parts:
        held = {name: parts.read(name) for name in parts.namelist()}
    for nonsense in (b"", b"0.", b"\x80\x02.", b"\x80\x02K\x01Q.", b"K\x01K\x01b."):
        with zipfile.ZipFile(path, "w") as parts:
            for name, data in held.items():
                parts.writestr(name, nonsense if name.endswith("data.pkl") else data)
        with pytest.raises(TrainerError, match=REFUSED):
            read_checkpoint(path)


OTHERS = {
    "a list": [1, 2],
    "weights alone": {"weight": torch.zeros(2)},
    "another format": {"format": "affectpipe/run", "format_version": 1, "epoch": 1},
    "a later version": {"format": FORMAT, "format_version": 2, "epoch": 1},
    "not all of it": {"format": FORMAT, "format_version": 1, "epoch": 1},
    "more than it": {"format": FORMAT, "format_version": 1, "epoch": 1, "state": {}, "best": {}, "finished": True, "made_for": {}, "x": 1},
}


@pytest.mark.parametrize("said", OTHERS.values(), ids=OTHERS.keys())
def test_one_of_another_format(said: Any, path: Path) -> None:
    torch.save(said, path)
    with pytest.raises(TrainerError, match=REFUSED) as caught:
        read_checkpoint(path)
    if not isinstance(said, dict) or said.get("format_version") != 1 or said.get("format") != FORMAT:
        assert re.search(f"expected format '{FORMAT}', version 1", str(caught.value))


def test_a_folder_in_its_place(path: Path) -> None:
    path.mkdir()
    with pytest.raises(TrainerError, match=REFUSED):
        read_checkpoint(path)
