"""One table over all systems: shapes, padding that changes nothing, gradients that reach everything. Their switches: test_switches."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.layers.released_fusion import ReleasedFusion
from trainer.losses import ccc_loss
from trainer.systems import SYSTEMS, system_class
from trainer.systems.contract import FINAL, Inputs

B, T, C = 4, 12, 2
SMALL = {"layers": 1, "heads": 2, "feed_forward": 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A small one of a system. heads: what it says beside the final head. per_trial: whether it can answer once per clip."""

    system: str
    params: dict[str, Any] = field(default_factory=dict)
    audio: dict[str, int] = field(default_factory=lambda: {"mfcc": 3, "vggish": 4})
    visual: dict[str, int] = field(default_factory=lambda: {"onet": 5})
    scores: dict[str, int] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    per_trial: bool = False

    def inputs(self, **more: Any) -> Inputs:
        return Inputs(**{"audio": self.audio, "visual": self.visual, "scores": self.scores, "rows": T, "n_outputs": C, **more})

    def made(self, *, params: dict[str, Any] | None = None, **more: Any) -> nn.Module:
        torch.manual_seed(0)
        kind = system_class(self.system)
        network: nn.Module = kind(kind.Params(**{**self.params, **(params or {})}), self.inputs(**more))
        return network


TCN = {"audio_channels": (4, 4), "visual_channels": (6, 6), **SMALL, "head": 7}
CASES = {
    "tcn_transformer": Case(system="tcn_transformer", params=TCN, scores={"scores": 10}, per_trial=True),
    "tcn_transformer_norm": Case(
        system="tcn_transformer", params={**TCN, "head_norm": True, "causal": False, "negative_slope": 0.01}, per_trial=True
    ),
    "gru_transformer": Case(
        system="gru_transformer", params={**SMALL, "gru_layers": 2, "gru_hidden": 5}, heads=("gru", "transformer"), scores={"scores": 10}
    ),
    "gru_transformer_odd": Case(  # 11 numbers for 2 heads
        system="gru_transformer", params={**SMALL, "gru_hidden": 5, "causal": True}, visual={"onet": 4}, heads=("gru", "transformer")
    ),
    "gru_attention": Case(
        system="gru_attention",
        params={"gru_layers": 2, "gru_hidden": 6, "heads": 2, "window": 2, "dropout": 0.2},
        audio={},
        visual={},
        scores={"scores": 10},
    ),
    "two_transformers": Case(system="two_transformers", params=SMALL, heads=("t1", "expanded", "t2")),
    "two_transformers_odd": Case(system="two_transformers", params=SMALL, visual={"onet": 4}, heads=("t1", "expanded", "t2")),
    "two_transformers_vote": Case(system="two_transformers", params={**SMALL, "fuse": "vote"}, heads=("t1", "expanded", "t2")),
    "clip_tcn": Case(system="clip_tcn", params={"d_model": 6, "blocks": 2, "head": 7}, per_trial=True),
    "clip_tcn_encoder": Case(system="clip_tcn", params={"d_model": 6, "blocks": 2, "head": 7, **SMALL}, per_trial=True),
    "joint_attention": Case(system="joint_attention", params={"hidden": 4, "head": 7, "attention_dropout": 0.2}, per_trial=True),
    "joint_attention_bare": Case(
        system="joint_attention", params={"u_blstm": False, "j_blstm": False, "head": 7, "dropout": 0.2}, per_trial=True
    ),
    "released_joint_attention": Case(system="released_joint_attention", audio={"spectrogram": 8}, visual={"clips": 49 * 8}),
}
MASKS = {
    "padding": torch.arange(T) < torch.tensor([[T], [7], [1], [T - 1]]),
    "gaps": torch.tensor([[i % 3 != row % 3 for i in range(T)] for row in range(B)]),
    "some_empty": torch.arange(T) < torch.tensor([[0], [5], [0], [T]]),
}
ROWS = {name: (case, False) for name, case in CASES.items()}
CLIPS = {f"{name}, per clip": (case, True) for name, case in CASES.items() if case.per_trial}
BOTH = ROWS | CLIPS
by_case = pytest.mark.parametrize(("case", "per_trial"), BOTH.values(), ids=BOTH.keys())
by_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


def features_of(case: Case, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(B, T, dim, generator=generator).to(dtype) for name, dim in case.inputs().dims.items()}


def labels_of(per_trial: bool) -> Tensor:
    return torch.rand((B, C) if per_trial else (B, T, C), generator=torch.Generator().manual_seed(4)) * 2 - 1


def said(network: nn.Module, features: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """With dropout that falls in the same way each time."""
    torch.manual_seed(1)
    outputs: dict[str, Tensor] = network(features, mask)
    return outputs


def loss_of(outputs: dict[str, Tensor], mask: Tensor, per_trial: bool) -> Tensor:
    valid = mask.any(dim=1, keepdim=True) if per_trial else mask[..., None]
    losses = [ccc_loss(head, labels_of(per_trial), valid.expand(head.shape)) for head in outputs.values()]
    return torch.stack(losses).sum()


def test_every_system_is_in_the_table() -> None:
    assert {case.system for case in CASES.values()} == set(SYSTEMS)


@by_case
@by_mask
def test_shapes(case: Case, per_trial: bool, mask: Tensor) -> None:
    outputs = said(case.made(per_trial=per_trial).eval(), features_of(case), mask)
    assert next(iter(outputs)) == FINAL
    assert set(outputs) == {FINAL, *case.heads}
    for head in outputs.values():
        assert head.shape == ((B, C) if per_trial else (B, T, C))
        assert head.dtype == torch.float32
        assert head.isfinite().all()
        assert per_trial or not head[~mask].any(), "zero where a row is not real"


@by_case
@by_mask
@pytest.mark.parametrize("training", [False, True])
def test_what_stands_in_padding_changes_nothing(case: Case, per_trial: bool, mask: Tensor, training: bool) -> None:
    """No head, no loss, no gradient and no running statistic, to the bit, whatever stands there."""
    network = case.made(per_trial=per_trial).train(training)
    results = []
    for nonsense in (0.0, torch.nan, 1e30, -torch.inf):
        again = copy.deepcopy(network)
        given = {name: x.masked_fill(~mask[..., None], nonsense).requires_grad_() for name, x in features_of(case).items()}
        outputs = said(again, given, mask)
        loss = loss_of(outputs, mask, per_trial)
        loss.backward()
        gradients = [value.grad for value in again.parameters() if value.grad is not None]
        reached = [x.grad for x in given.values() if x.grad is not None]
        assert len(reached) == len(given)
        assert not any(gradient[~mask].any() for gradient in reached)
        results.append([*outputs.values(), loss, *gradients, *reached, *(value.clone() for value in again.buffers())])
        assert all(value.isfinite().all() for value in results[-1])
    for other in results[1:]:
        assert len(other) == len(results[0])
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@by_case
def test_nor_does_it_in_inference(case: Case, per_trial: bool) -> None:
    """Where torch's Transformer goes another way."""
    network, mask = case.made(per_trial=per_trial).eval(), MASKS["padding"]
    with torch.inference_mode():
        expected = said(network, features_of(case), mask)
        for nonsense in (torch.nan, 1e30, -torch.inf):
            done = said(network, {name: x.masked_fill(~mask[..., None], nonsense) for name, x in features_of(case).items()}, mask)
            assert all(torch.equal(done[name], expected[name]) for name in expected)


@by_case
def test_what_stands_in_real_rows_changes_something(case: Case, per_trial: bool) -> None:
    """Of every feature: without this the tests above would hold for a system that reads none."""
    network, mask = case.made(per_trial=per_trial).double().eval(), MASKS["padding"]
    features = features_of(case, torch.float64)
    before = network(features, mask)
    for name, x in features.items():
        after = network({**features, name: x + mask[..., None] * torch.linspace(0.5, 1, x.shape[-1])}, mask)
        for head in case.heads if "vote" in case.params.values() else (FINAL, *case.heads):
            assert not torch.equal(before[head], after[head]), f"{head} does not hear of {name}"


@by_case
def test_a_gradient_reaches_every_weight(case: Case, per_trial: bool) -> None:
    network, mask = case.made(per_trial=per_trial).train(), MASKS["padding"]
    loss_of(said(network, features_of(case), mask), mask, per_trial).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_trials_of_a_batch_do_not_meet(case: Case) -> None:
    """In float64, as sums come in other orders."""
    network, mask = case.made().double().eval(), MASKS["padding"]
    features = features_of(case, torch.float64)
    together = network(features, mask)
    for i in range(B):
        alone = network({name: x[i : i + 1] for name, x in features.items()}, mask[i : i + 1])
        for name, head in together.items():
            torch.testing.assert_close(alone[name][0], head[i], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", [case for case in CASES.values() if not case.per_trial], ids=lambda case: case.system)
def test_those_that_answer_per_row_say_so(case: Case) -> None:
    with pytest.raises(TrainerError, match=r"(one answer per row|per row, got)"):
        case.made(per_trial=True)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("tcn_transformer", {"audio_channels": ()}, r"audio_channels: expected one number or more, each from 1, got \[\]"),
    ("tcn_transformer", {"visual_channels": (4, 0)}, r"visual_channels: expected one number or more, each from 1, got \[4, 0\]"),
    ("tcn_transformer", {"tcn_dropout": 1.0}, "tcn_dropout: expected a share from 0 and below 1, got 1.0"),
    *(("tcn_transformer", {name: 0}, f"{name}: expected a number above 0, got 0") for name in ("kernel", "layers", "heads", "head")),
    ("tcn_transformer", {"feed_forward": -1}, "feed_forward: expected a number above 0, got -1"),
    ("gru_transformer", {"gru_layers": 0}, "gru_layers: expected a number above 0, got 0"),
    ("gru_transformer", {"dropout": -0.1}, "dropout: expected a share from 0 and below 1, got -0.1"),
    ("gru_transformer", {"dim": 5}, "dim: expected a multiple of 2 heads, got 5"),
    ("gru_attention", {"attentions": -1}, "attentions: expected 0 or more, got -1"),
    ("gru_attention", {"gru_hidden": 7}, "gru_hidden: expected a multiple of 2 heads, got 7"),
    ("gru_attention", {"window": 0}, "window: expected a number above 0, got 0"),
    ("two_transformers", {"expansion": 0.0}, "expansion: expected a number above 0, got 0.0"),
    ("two_transformers", {"dim": 3}, "dim: expected a multiple of 2 heads, got 3"),
    ("clip_tcn", {"layers": -1}, "layers: expected 0 or more, got -1"),
    ("clip_tcn", {"blocks": 0}, "blocks: expected a number above 0, got 0"),
    ("joint_attention", {"iterations": 0}, "iterations: expected a number above 0, got 0"),
    ("joint_attention", {"attention_dropout": 1.5}, "attention_dropout: expected a share from 0 and below 1, got 1.5"),
    ("released_joint_attention", {"iterations": 0}, "iterations: expected a number above 0, got 0"),
    ("released_joint_attention", {"dropout_lstm": 1.0}, "dropout_lstm: expected a share from 0 and below 1, got 1.0"),
]


@pytest.mark.parametrize(("system", "params", "match"), WRONG)
def test_parameters_out_of_range(system: str, params: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=f"^{match}$"):
        CASES[system].made(params=params)


@pytest.mark.parametrize("system", ["joint_attention", "released_joint_attention"])
@pytest.mark.parametrize("kind", ["audio", "visual"])
def test_joint_attention_needs_both(system: str, kind: str) -> None:
    with pytest.raises(TrainerError, match=f"features: joint attention fuses sound and sight: it has no {kind} feature; name some of both"):
        CASES[system].made(**{kind: {}})


@pytest.mark.parametrize("more", [{"visual": {"clips": 8}}, {"n_outputs": 3}, {"per_trial": True}], ids=["no map", "targets", "per clip"])
def test_the_released_one_needs_maps_and_two_targets(more: dict[str, Any]) -> None:
    with pytest.raises(TrainerError, match=r"the released fusion cannot take these: expected 8 numbers that hear, 49 x 8 that see"):
        CASES["released_joint_attention"].made(**more)


def test_widths_that_heads_cannot_share() -> None:
    with pytest.raises(TrainerError, match=r"model.heads: 14 numbers for 4 heads: they must be a multiple; change model.heads"):
        CASES["tcn_transformer_norm"].made(params={"heads": 4})
    with pytest.raises(TrainerError, match=r"model.heads: 6 numbers for 4 heads: they must be a multiple; .*model.d_model"):
        CASES["clip_tcn_encoder"].made(params={"heads": 4})
    network = CASES["clip_tcn"].made(params={"heads": 4})
    assert network.encoder is None, "of no encoder nobody asks for heads"


def test_inputs_of_nothing() -> None:
    with pytest.raises(ValueError, match="Inputs: expected one feature or more, got none"):
        Inputs(rows=T, n_outputs=C)


@pytest.mark.parametrize("mask", [MASKS["padding"], torch.ones(B, T, dtype=torch.bool)], ids=["padded", "whole"])
def test_the_released_one_is_the_released_fusion(mask: Tensor) -> None:
    """Valence first, then arousal; the fusion itself is compared with what its authors released in test_layer_parity."""
    case = CASES["released_joint_attention"]
    network = case.made(params={"iterations": 2}).eval()
    torch.manual_seed(9)
    fusion = ReleasedFusion(dim=8, rows=T, iterations=2).eval()
    state = fusion.state_dict()
    network.load_state_dict({f"fusion.{name}": value for name, value in state.items()})
    features = features_of(case)
    valence, arousal = fusion(features["spectrogram"], features["clips"], mask)
    final = network(features, mask)[FINAL]
    assert torch.equal(final[..., 0], valence)
    assert torch.equal(final[..., 1], arousal)
    assert not torch.equal(valence, arousal)


def test_the_order_of_features_is_that_of_the_inputs() -> None:
    """A batch's features may come in any order: each goes to the weights of its own name."""
    for case in (CASES["tcn_transformer"], CASES["gru_transformer"], CASES["joint_attention"]):
        network, features = case.made().eval(), features_of(case)
        turned = dict(reversed(features.items()))
        assert list(turned) != list(features)
        assert torch.equal(network(turned, MASKS["gaps"])[FINAL], network(features, MASKS["gaps"])[FINAL])
    assert dataclasses.replace(case.inputs(), rows=3).dims == {"mfcc": 3, "vggish": 4, "onet": 5}
