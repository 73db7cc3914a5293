"""Weight files: nothing in them is executed, nothing is loaded that does not fit, and every refusal says why."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from extractors.contract import ExtractorError
from extractors.visual.iresnet import IResNet50
from extractors.weights import Layout, beside, describe_missing, find, load_state, load_strict, rows_of


class Payload:
    """What an attacker puts into a pickle: unpickling it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.made,)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(network().state_dict())


def test_finds_the_first_folder_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    (second / "net.pth").touch()
    assert find("net.pth", [first, second]) == second / "net.pth"
    (first / "net.pth").touch()
    assert find("net.pth", [first, second]) == first / "net.pth"
    assert find("other.pth", [first, second, tmp_path / "absent"]) is None
    assert find("a", [tmp_path]) is None  # a folder is no weight file


@pytest.mark.parametrize("name", ["", ".", "..", "../net.pth", "/etc/passwd", "a/net.pth", "a\\net.pth", "net\0.pth"])
def test_a_weight_name_cannot_leave_the_folders(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match="bare file name"):
        find(name, [tmp_path])


def test_a_missing_file_is_described_with_origin_licence_and_place(tmp_path: Path) -> None:
    line = describe_missing(IResNet50, "r50.pth", [tmp_path / "weights"])
    assert all(part in line for part in ("iresnet50", "r50.pth", IResNet50.origin, IResNet50.licence, str(tmp_path / "weights")))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_kind_of_file_gives_the_same_tensors(kind: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "net.bin"  # the kind is told by the content: the name says nothing
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    read = load_state(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "state_dict_backbone", "net", "model", "teacher"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone.", "model.encoder."])
def test_wrappers_and_prefixes_are_taken_off(wrapper: str, prefix: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"epoch": 3, wrapper: {prefix + key: value for key, value in state.items()}}, tmp_path / "net.pth")
    assert load_state(tmp_path / "net.pth").keys() == state.keys()


def test_a_prefix_stays_where_not_every_key_has_it_or_the_network_wants_it(tmp_path: Path) -> None:
    torch.save({"backbone.a": torch.ones(1), "logits.b": torch.ones(1)}, tmp_path / "mixed.pth")
    assert set(load_state(tmp_path / "mixed.pth")) == {"backbone.a", "logits.b"}
    torch.save({"module.encoder.a": torch.ones(1)}, tmp_path / "own.pth")
    assert set(load_state(tmp_path / "own.pth", {"encoder.a"})) == {"encoder.a"}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_foreign_objects_is_refused_and_nothing_runs(legacy: bool, tmp_path: Path) -> None:
    made, path = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save({"a": torch.ones(1), "b": Payload(made)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ExtractorError, match=re.escape(str(path)) + ".*would have to be executed.*state_dict"):
        load_state(path)
    assert not made.exists()
    torch.load(path, weights_only=False)  # that the payload is a real one
    assert made.exists()


def test_a_whole_network_or_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "whole.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(tmp_path / "executed"), protocol=2))
    for name in ("whole.pth", "plain.pth"):
        with pytest.raises(ExtractorError, match=f"{name} cannot be loaded: .*executed"):
            load_state(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"text, not weights", b"PK\x03\x04 cut", b"\x80\x02}q", b"\x10\0\0\0\0\0\0\0{broken json"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: .+; fetch it again"):
        load_state(tmp_path / "net.pth")


def test_a_truncated_file_is_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "net.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: .+; fetch it again"):
        load_state(tmp_path / "net.pth")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: No such file or directory; check that"):
        load_state(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("content", "why"),
    [([1, 2], "it holds a list"), ({}, "it holds nothing"), ({"a": torch.ones(1), "lr": 0.1}, r"of its 2 entries 1 are no tensors \(lr\)")],
)
def test_a_file_of_something_else_says_what(content: object, why: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ExtractorError, match=why):
        load_state(tmp_path / "net.pth")


def test_a_network_on_the_meta_device_gets_the_files_values(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "net.pth")
    with torch.device("meta"):
        made = network()
    load_strict(made, tmp_path / "net.pth")
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())


def test_all_that_does_not_fit_is_listed_in_one_error(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    del state["0.bias"]
    state["0.weight"] = torch.zeros(2, 4)
    state["1.weight"] = torch.zeros(2, dtype=torch.int64)
    state |= {f"head.{i}": torch.zeros(1) for i in range(6)}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: of 7 tensors") as caught:
        load_strict(network(), tmp_path / "net.pth")
    assert "1 missing (0.bias)" in caught.value.why
    assert "6 unexpected (head.0, head.1, head.2, head.3, ...)" in caught.value.why
    assert (
        "2 of another shape (0.weight (2, 4) float, expected (2, 3) float, 1.weight (2,) integer, expected (2,) float)" in caught.value.why
    )


HEADED = Layout(converted=beside("head.", "1."), dropped=("head.",))


@pytest.mark.parametrize("outer", ["", "module."])
@pytest.mark.parametrize("inner", ["", "backbone.", "encoder.module."])
def test_a_head_beside_the_network_is_told_from_it(outer: str, inner: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Also one whose name is that of a part of the network: here "1."."""
    content = {outer + inner + key: value for key, value in state.items()} | {outer + "head.weight": torch.ones(5, 2)}
    if inner:
        content[outer + "1.weight"] = torch.ones(5, 2)
    torch.save(content, tmp_path / "net.pth")
    made = network()
    load_strict(made, tmp_path / "net.pth", HEADED)
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    assert rows_of(tmp_path / "net.pth", "head.weight", HEADED) == 5


def test_a_file_without_the_head_has_no_rows(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: it has no head\.weight; give a checkpoint that holds the class"):
        rows_of(tmp_path / "net.pth", "head.weight", HEADED)
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: 1\.weight is \(2,\) float, expected a matrix"):
        rows_of(tmp_path / "net.pth", "1.weight", HEADED)


def test_a_file_of_heads_alone_is_refused(tmp_path: Path) -> None:
    torch.save({"head.weight": torch.ones(5, 2)}, tmp_path / "net.pth")
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: of 7 tensors, 7 missing"):
        load_strict(network(), tmp_path / "net.pth", HEADED)


@pytest.mark.parametrize("name", ["NaN", "infinite", "sparse", "without data", "complex"])
def test_tensors_that_are_not_all_there_do_not_fit(name: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    value = state["0.weight"]
    state["0.weight"] = {
        "NaN": value * torch.nan,
        "infinite": value / 0,
        "sparse": value.to_sparse(),
        "without data": value.to("meta"),
        "complex": value.to(torch.complex64),
    }[name]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ExtractorError, match=r"1 of another shape \(0\.weight \(2, 3\) "):
        load_strict(network(), tmp_path / "net.pth")


def test_the_reason_of_a_refused_pickle_is_told(tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "executed"), tmp_path / "evil.pth")
    with pytest.raises(ExtractorError, match=r"evil\.pth cannot be loaded: .*(Unsupported|GLOBAL|pathlib)"):
        load_state(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_a_conversion_that_does_not_find_what_it_looks_for_is_a_file_that_does_not_fit(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: it lacks what its layout has \('stem'\)"):
        load_strict(network(), tmp_path / "net.pth", Layout(converted=lambda given: {"0.weight": given["stem"]}))
