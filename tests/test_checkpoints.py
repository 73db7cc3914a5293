"""`weights` and `weights check`: what is listed, and what is said of files that fit, do not fit, or are hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner

from extractors.checkpoints import CHECKPOINTS, Checkpoint
from extractors.contract import ExtractorError, Runtime
from extractors.registry import EXTRACTORS, load
from extractors.weights import Layout, compare, load_state, load_strict, read_content
from pipeline import checkpoints
from pipeline.cli import main


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Ask = Callable[..., Said]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """affectpipe weights WORDS, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def said(*words: object) -> Said:
        done = CliRunner().invoke(main, ["weights", *map(str, words)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    return said


def state_of(name: str, **params: Any) -> dict[str, torch.Tensor]:
    """An extractor's tensors, all zero and of one element's memory."""
    extractor = load(name)
    with torch.device("meta"):
        own = extractor.network(extractor.Params(**params)).state_dict()
    return {key: torch.zeros((), dtype=like.dtype).expand(like.shape) for key, like in own.items()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """iresnet50 is given a small network, and a layout that renames, drops and refuses; the network's state."""
    iresnet50 = load("iresnet50")

    def network(params: Any) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))

    def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if "cursed" in state:
            raise ValueError("it is cursed")
        return {key.replace("norm.", "1."): value for key, value in state.items()}

    monkeypatch.setattr(iresnet50, "network", staticmethod(network))
    monkeypatch.setattr(iresnet50, "layout", Layout(converted=renamed, dropped=("head.",), classes=CLASSES))
    return dict(network(None).state_dict())


CLASSES = ("torch.nn.modules.container.Sequential", "torch.nn.modules.linear.Linear", "torch.nn.modules.batchnorm.BatchNorm1d")


def test_the_catalogue_states_facts() -> None:
    """Every entry has its origin and terms, none stands twice, and a digest is the one in the publisher's file name."""
    assert len({(entry.extractor, entry.file) for entry in CHECKPOINTS}) == len(CHECKPOINTS)
    for entry in CHECKPOINTS:
        assert entry.file
        assert entry.origin
        assert entry.licence
        assert not entry.sha256_prefix or entry.file.endswith(f"-{entry.sha256_prefix}.pth")


def test_torchvisions_addresses_are_those_of_its_own_weights() -> None:
    from torchvision.models import get_model_weights, list_models

    known = {weights.url for name in list_models() for weights in get_model_weights(name)}
    listed = [entry.origin for entry in CHECKPOINTS if "torchvision" in entry.licence]
    assert len(listed) == 11
    assert set(listed) <= known


def test_every_entry_is_for_an_extractor_and_its_parameters() -> None:
    for entry in CHECKPOINTS:
        if entry.extractor in EXTRACTORS:
            extractor = load(entry.extractor)
            assert extractor.needs_weights
            extractor.Params(**entry.params)


def test_the_registry_has_every_extractor_of_the_catalogue() -> None:
    assert {entry.extractor for entry in CHECKPOINTS} <= EXTRACTORS.keys()


def test_lists_every_checkpoint_and_where_it_looked(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    torch.save(state_of("vggish"), tmp_path / "mine" / "vggish-10086976.pth")
    said = ask("--weights", "mine", "--stages", "set/stages.yaml", "--json")
    assert said.status == 0
    assert said.json["searched"] == ["mine", "set/weights", "cache/weights"]
    rows = {(row["extractor"], row["file"]): row for row in said.json["checkpoints"]}
    assert len(rows) == len(CHECKPOINTS)
    vggish = rows["vggish", "vggish-10086976.pth"]
    assert (vggish["path"], vggish["licence"], vggish["sha256_prefix"]) == ("mine/vggish-10086976.pth", "Apache-2.0", "10086976")
    assert vggish["state"].startswith("another file: its sha256 begins ")
    assert {row["state"] for key, row in rows.items() if key[0] != "vggish"} == {"missing"}
    text = ask("--weights", "mine").out
    assert "searched: mine, weights, cache/weights" in text
    assert all(entry.file in text and entry.origin in text and entry.licence in text for entry in CHECKPOINTS)
    assert not (tmp_path / "cache").exists()


def test_a_found_file_is_looked_at(ask: Ask, small: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    (tmp_path / "weights").mkdir()
    torch.save(small, tmp_path / "weights" / "good.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "weights" / "bad.pth")
    (tmp_path / "weights" / "text.pth").write_text("text")
    prefix = hashlib.sha256((tmp_path / "weights" / "good.pth").read_bytes()).hexdigest()[:8]
    known = {"extractor": "iresnet50", "origin": "here", "licence": "none"}
    entries = [Checkpoint(file=f"{name}.pth", **known) for name in ("good", "bad", "text")]
    entries.append(Checkpoint(file="good.pth", sha256_prefix=prefix, **known))
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tuple(entries))
    states = [row["state"] for row in ask("--json").json["checkpoints"]]
    assert [states[0], states[3]] == ["found"] * 2
    assert states[1].startswith("does not fit: of 7 tensors, 7 missing")
    assert states[2].startswith("does not fit: weights weights/text.pth cannot be loaded: ")


@pytest.mark.parametrize("json_", [False, True])
def test_says_which_layout_a_fitting_file_has(json_: bool, ask: Ask, small: dict[str, torch.Tensor]) -> None:
    state = {f"module.backbone.{key.replace('1.', 'norm.')}": value for key, value in small.items()}
    torch.save({"epoch": 3, "state_dict": state | {"module.backbone.head.weight": torch.ones(2)}}, "net.pth")
    said = ask("check", "net.pth", "--for", "iresnet50", *(["--json"] if json_ else []))
    assert said.status == 0
    if json_:
        layout = said.json["layout"]
        assert (said.json["fits"], said.json["why"], said.json["others"]) == (True, "", [])
        assert (layout["wrapper"], layout["prefixes"], layout["converted"]) == ("state_dict", ["module.", "backbone."], True)
        assert (layout["dropped"], layout["pickled"], layout["n_own"]) == (["head.weight"], "", 7)
        return
    assert said.out.splitlines() == [
        "net.pth: fits iresnet50",
        "  under the key 'state_dict'",
        "  prefix taken off: module.backbone.",
        "  names or shapes converted to the network's",
        "  1 tensors not used: head.weight",
    ]


def test_says_that_a_file_is_a_pickled_module(ask: Ask, small: dict[str, torch.Tensor]) -> None:
    torch.save(load("iresnet50").network(None), "net.pth")
    said = ask("check", "net.pth", "--for", "iresnet50")
    assert (said.status, said.out.splitlines()) == (0, ["net.pth: fits iresnet50", "  pickled module: Sequential"])


def test_says_all_that_does_not_fit(ask: Ask, small: dict[str, torch.Tensor]) -> None:
    del small["0.bias"]
    small |= {"0.weight": torch.zeros(2, 4), **{f"logits.{i}": torch.zeros(1) for i in range(6)}}
    torch.save(small, "net.pth")
    said = ask("check", "net.pth", "--for", "iresnet50")
    assert said.status == 1
    assert said.out.splitlines() == [
        "net.pth: does not fit iresnet50",
        "  1 missing (Sequential has 7): 0.bias",
        "  6 unexpected (Sequential has 7): logits.0, logits.1, logits.2, logits.3, ...",
        "  1 of another shape (Sequential has 7): 0.weight (2, 4) float, expected (2, 3) float",
        "it fits no other extractor of the registry",
    ]
    found = ask("check", "net.pth", "--for", "iresnet50", "--json").json
    assert len(found["layout"]["unexpected"]) == 6, "JSON has all of them"


def test_says_why_a_layout_could_not_be_converted(ask: Ask, small: dict[str, torch.Tensor]) -> None:
    torch.save({"cursed": torch.ones(1)}, "net.pth")
    said = ask("check", "net.pth", "--for", "iresnet50")
    assert (said.status, said.out.splitlines()[1]) == (1, "  it is cursed")


def test_names_the_extractors_that_a_wrong_file_fits(ask: Ask) -> None:
    torch.save(state_of("vggish"), "mystery.pth")
    said = ask("check", "mystery.pth", "--for", "iresnet50")
    assert said.status == 1
    assert said.out.splitlines()[-1] == "it fits: --for vggish"
    assert ask("check", "mystery.pth", "--for", "iresnet50", "--json").json["others"] == [{"extractor": "vggish", "params": {}}]
    assert ask("check", "mystery.pth", "--for", "vggish", "--set", "output=relu", "--set", "hop=native").status == 0


def test_of_a_choice_of_networks_it_names_the_one_that_fits(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also another choice of the very extractor that was asked for; one whose library is not installed is no answer."""
    vggish = load("vggish")

    def network(params: Any) -> torch.nn.Module:
        return torch.nn.Linear(3, 2 if params.output == "relu" else 4)

    def absent(params: Any) -> torch.nn.Module:
        raise ModuleNotFoundError("No module named 'timm'")

    monkeypatch.setattr(vggish, "network", staticmethod(network))
    monkeypatch.setattr(load("iresnet50"), "network", staticmethod(absent))
    torch.save(torch.nn.Linear(3, 2).state_dict(), "net.pth")
    assert ask("check", "net.pth", "--for", "vggish").out.splitlines()[-1] == "it fits: --for vggish --set output=relu"


class Head:
    """An extractor that may have a head of as many classes as its file has. Its `network` has two."""

    layout = Layout(dropped=("head.",))

    @dataclass(frozen=True, kw_only=True)
    class Params:
        head: bool = False

    @staticmethod
    def network(params: Any, classes: int = 2) -> torch.nn.Module:
        made = torch.nn.Sequential()
        made.add_module("body", torch.nn.Linear(3, 2))
        if params.head:
            made.add_module("head", torch.nn.Linear(2, classes))
        return made

    def __init__(self, params: Any, runtime: Any) -> None:
        state = load_state(runtime.weights)
        if params.head and "head.weight" not in state:
            raise ExtractorError("no head", why="the file has none", fix="leave it out")
        load_strict(self.network(params, len(state.get("head.weight", ()))), runtime.weights, self.layout)


@pytest.mark.parametrize("classes", [0, 2, 8])
def test_with_parameters_the_extractor_itself_is_the_judge(classes: int, tmp_path: Path) -> None:
    torch.save(Head.network(Head.Params(head=classes > 0), classes).state_dict(), tmp_path / "net.pth")
    plain = checkpoints.examine(tmp_path / "net.pth", Head, Head.Params())
    assert (plain.why, plain.fit and plain.fit.dropped) == ("", ("head.weight", "head.bias") if classes else ())
    with_head = checkpoints.examine(tmp_path / "net.pth", Head, Head.Params(head=True))
    assert with_head.why == ("" if classes else "of 4 tensors, 2 missing (head.weight, head.bias)")
    assert with_head.fit is not None
    assert (with_head.fit.why == "") == (classes > 0)


def test_a_door_is_checked_as_any_other(ask: Ask) -> None:
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), "net.pth")
    said = ask("check", "net.pth", "--for", "timm:test_resnet")
    assert (said.status, said.out.splitlines()[1]) == (0, "  2 tensors not used: fc.weight, fc.bias")
    assert ask("check", "net.pth", "--for", "timm:test_vit").status == 1


def test_a_folder_is_checked_by_making_the_extractor(ask: Ask, tmp_path: Path) -> None:
    import transformers

    kinds = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32}
    transformers.ViTModel(transformers.ViTConfig(**kinds, patch_size=8)).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    said = ask("check", "vit", "--for", "hf:me/vit", "--set", "pool=mean")
    assert (said.status, said.out.splitlines()) == (0, ["vit: fits hf:me/vit"])
    (tmp_path / "vit" / "model.safetensors").unlink()
    said = ask("check", "vit", "--for", "hf:me/vit")
    assert said.status == 1
    assert said.out.splitlines() == [
        "vit: does not fit hf:me/vit",
        "  saved model vit cannot be used: it has no model.safetensors or pytorch_model.bin; "
        "save the model in one file (save_pretrained, max_shard_size)",
    ]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_file_runs_nothing_and_is_told_once(legacy: bool, ask: Ask, tmp_path: Path) -> None:
    made = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (made,)

    torch.save({"a": torch.ones(1), "b": Payload()}, "evil.pth", _use_new_zipfile_serialization=not legacy)
    said = ask("check", "evil.pth", "--for", "iresnet50")
    assert said.status == 1
    assert len(said.out.splitlines()) == 3
    assert "evil.pth cannot be loaded: it is damaged, or holds objects that would have to be executed" in said.out.splitlines()[1]
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut", b"\x80\x02}q", b"\x10\0\0\0\0\0\0\0{broken json"])
def test_a_damaged_file_is_told(content: bytes, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    said = ask("check", "net.pth", "--for", "vggish")
    assert said.status == 1
    assert "cannot be loaded" in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.pth", "--for", "vggish"], "error: absent.pth: no such file or folder; name the weight file"),
        (["net.pth", "--for", "vgish"], "error: --for: unknown extractor 'vgish'; did you mean 'vggish'?"),
        (["net.pth", "--for", "onet"], "error: --for: onet takes no weight file; name one that does"),
        (["net.pth", "--for", "timm:nothing"], "error: --for: no model 'nothing' in timm: "),
        (["net.pth", "--for", "vggish", "--set", "hopp=native"], "error: --set: hopp: unknown key; did you mean 'hop'?"),
        (["net.pth", "--for", "vggish", "--set", "hop=never"], "error: --set: hop: input should be 'timeline' or 'native', got 'never'"),
        (["net.pth", "--for", "vggish", "--set", "hop"], "error: --set: 'hop' is no setting; write NAME=VALUE"),
        (["net.pth", "--for", "vggish", "--set", "hop=[1"], "error: --set: 'hop=[1' is no setting; write NAME=VALUE"),
    ],
)
def test_a_wrong_request_has_status_2(words: list[str], said: str, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "net.pth").touch()
    done = ask("check", *words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(said)
    assert len(done.err.splitlines()) == 1


def test_what_is_said_is_what_loading_says(small: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """One truth: the constructor's error holds the very words of the report."""
    del small["0.bias"]
    torch.save(small, tmp_path / "net.pth")
    iresnet50 = load("iresnet50")
    fit, _ = compare(iresnet50.network(None), read_content(tmp_path / "net.pth"), iresnet50.layout)
    assert fit.why == "of 7 tensors, 1 missing (0.bias)"
    with pytest.raises(
        ExtractorError, match=r"net\.pth cannot be loaded: of 7 tensors, 1 missing \(0\.bias\); give the checkpoint of a Seq"
    ):
        iresnet50(iresnet50.Params(), Runtime(weights=tmp_path / "net.pth"))
