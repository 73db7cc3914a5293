"""The systems' switches do what they say: those of the papers' ablation tables among them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.layers.transformer import EncoderDecoder
from trainer.systems import system_class
from trainer.systems.contract import FINAL, Inputs

B, T, C = 3, 8, 2
MASK = torch.arange(T) < torch.tensor([[T], [5], [1]])
SMALL = {"layers": 1, "heads": 2, "feed_forward": 16}
SOUND_AND_SIGHT = Inputs(audio={"mfcc": 3}, visual={"onet": 5}, rows=T, n_outputs=C)


def made(system: str, inputs: Inputs = SOUND_AND_SIGHT, **params: Any) -> nn.Module:
    torch.manual_seed(0)
    kind = system_class(system)
    network: nn.Module = kind(kind.Params(**params), inputs).double().eval()
    return network


def features_of(inputs: Inputs = SOUND_AND_SIGHT) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(B, T, dim, generator=generator, dtype=torch.float64) for name, dim in inputs.dims.items()}


def hears(network: nn.Module, inputs: Inputs = SOUND_AND_SIGHT, row: int = 4) -> tuple[int, int]:
    """The first and the last row that the answer of a row depends on, by where it has a gradient."""
    features = {name: x.requires_grad_() for name, x in features_of(inputs).items()}
    network(features, torch.ones(B, T, dtype=torch.bool))[FINAL][:, row].sum().backward()
    reached = sum((x.grad.abs().sum(dim=(0, 2)) for x in features.values() if x.grad is not None), torch.zeros(T))
    rows = reached.nonzero()[:, 0].tolist()
    return rows[0], rows[-1]


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_iterations_of_joint_attention(t: int) -> None:
    """Each is a layer on what the one before it made, with six matrices of its own, and each of them counts."""
    network = made("joint_attention", iterations=t, u_blstm=False, j_blstm=False, head=7)
    weights = [value for name, value in network.named_parameters() if name.startswith("attention.")]
    assert len(weights) == 6 * t
    assert len({value.data_ptr() for value in weights}) == 6 * t
    features = features_of()
    final = network(features, MASK)[FINAL]
    audio, visual = features["mfcc"], features["onet"]
    for layer in network.attention.iterations:
        audio, visual = layer(audio, visual, MASK)
    by_hand = network.head(torch.cat([audio, visual], dim=-1), MASK)
    assert torch.equal(final, by_hand)
    for i in range(t):
        other = copy.deepcopy(network)
        with torch.no_grad():
            other.attention.iterations[i].visual.w_attention.mul_(2)
        assert not torch.equal(other(features, MASK)[FINAL], final), f"iteration {i + 1}"


@pytest.mark.parametrize(("u_blstm", "j_blstm"), [(True, True), (True, False), (False, True), (False, False)])
def test_blstms_of_joint_attention(u_blstm: bool, j_blstm: bool) -> None:
    """Which of them there are, and what they hand on: both directions of `hidden` numbers each."""
    network = made("joint_attention", u_blstm=u_blstm, j_blstm=j_blstm, hidden=4, head=7)
    lstms = {name: module for name, module in network.named_modules() if isinstance(module, nn.LSTM)}
    expected = {"audio_blstm.rnn": 3, "visual_blstm.rnn": 5} if u_blstm else {}
    if j_blstm:
        expected["joint_blstm.rnn"] = 16 if u_blstm else 8
    assert {name: module.input_size for name, module in lstms.items()} == expected
    assert all(module.bidirectional and module.hidden_size == 4 for module in lstms.values())
    attended = network.attention.iterations[0].audio.w_correlation
    assert attended.shape == ((8, 8) if u_blstm else (3, 3))
    assert network.head.first.in_features == (8 if j_blstm else 16 if u_blstm else 8)


@pytest.mark.parametrize("target", ["t1", "features"])
def test_the_target_of_the_second_transformer(target: str) -> None:
    network, seen = made("two_transformers", **SMALL, target=target), {}
    for name, module in network.transformers.items():
        module.register_forward_hook(lambda _, given, done, name=name: seen.update({name: (*given[:2], done)}))
    features = features_of()
    network(features, MASK)
    x = torch.cat([features["mfcc"], features["onet"]], dim=-1)
    assert torch.equal(seen["t1"][0], x)
    assert torch.equal(seen["t1"][1], x), "the first one's source and target are the features"
    assert torch.equal(seen["t2"][0], network.expansion(x, MASK))
    assert torch.equal(seen["t2"][1], seen["t1"][2] if target == "t1" else x)


def test_only_the_first_transformer() -> None:
    network = made("two_transformers", **SMALL, branches="t1")
    names = {name.partition(".")[2].partition(".")[0] for name, _ in network.named_parameters()}
    assert names == {"t1"}
    said = network(features_of(), MASK)
    assert set(said) == {FINAL, "t1"}
    assert torch.equal(said[FINAL], said["t1"])


def test_the_mean_of_branches() -> None:
    said = made("two_transformers", **SMALL)(features_of(), MASK)
    mean = np.mean([said[name].detach().numpy() for name in ("t1", "t2", "expanded")], axis=0)
    np.testing.assert_allclose(said[FINAL].detach().numpy(), mean, rtol=1e-12, atol=1e-15)  # float64


def test_the_vote_of_branches() -> None:
    """The share of the three that say yes, as a logit; 0.999 and 0.001 where all agree."""
    network = made("two_transformers", **SMALL, fuse="vote")
    logits = torch.tensor([[1.0, 1.0, 2.0], [1.0, 0.5, -1.0], [-3.0, -0.1, 7.0], [-1.0, -1.0, -1.0], [0.0, -1.0, -1.0]])
    fused = network._fused({"t1": logits[:, 0], "t2": logits[:, 1], "expanded": logits[:, 2]})
    expected = [0.999, 2 / 3, 1 / 3, 0.001, 1 / 3]
    np.testing.assert_allclose(fused.sigmoid().numpy(), expected, rtol=0, atol=1e-6)  # float32 of numbers in 0 to 1
    said = network(features_of(), MASK)
    share = np.mean([said[name].detach().numpy() >= 0 for name in ("t1", "t2", "expanded")], axis=0)
    real = MASK.numpy()
    np.testing.assert_allclose(said[FINAL].sigmoid().numpy()[real], np.clip(share, 0.001, 0.999)[real], rtol=0, atol=1e-6)
    assert len(np.unique(share[real])) > 1
    assert not said[FINAL].requires_grad, "steps have no gradient"


def test_a_gru_without_attention_is_torchs_gru() -> None:
    scores = Inputs(scores={"scores": 10}, rows=T, n_outputs=C)
    network = made("gru_attention", scores, gru_layers=2, gru_hidden=6, heads=2, attentions=0)
    assert not any(isinstance(module, nn.MultiheadAttention) for module in network.modules())
    gru = nn.GRU(10, 6, 2, batch_first=True).double()
    gru.load_state_dict({name.removeprefix("gru.rnn."): value for name, value in network.state_dict().items() if name.startswith("gru.")})
    x = features_of(scores)["scores"]
    by_hand = gru(x)[0] @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(features_of(scores), torch.ones(B, T, dtype=torch.bool))[FINAL], by_hand, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("attentions", "last"), [(0, 3), (1, 5), (2, 7)])
def test_each_local_attention_sees_further(attentions: int, last: int) -> None:
    """A GRU hears all rows before, and each attention `window` rows after."""
    scores = Inputs(scores={"scores": 10}, rows=T, n_outputs=C)
    network = made("gru_attention", scores, gru_layers=1, gru_hidden=6, heads=2, attentions=attentions, window=2)
    assert hears(network, scores, row=3) == (0, last)


def test_gru_and_transformer_side_by_side() -> None:
    """The final head is one linear layer of both blocks' outputs; each block's own is one of its own."""
    network, done = made("gru_transformer", **SMALL, gru_layers=2, gru_hidden=5), {}
    for name in ("gru", "transformer"):
        getattr(network, name).register_forward_hook(lambda _, given, out, name=name: done.update({name: out}))
    said = network(features_of(), MASK)
    both = torch.cat([done["gru"], done["transformer"]], dim=-1)
    parts = {FINAL: (both, "of_both"), "gru": (done["gru"], "of_gru"), "transformer": (done["transformer"], "of_transformer")}
    for head, (x, layer) in parts.items():
        by_hand = x @ getattr(network, layer).weight.T + getattr(network, layer).bias
        torch.testing.assert_close(said[head][MASK], by_hand[MASK], rtol=1e-12, atol=1e-14)


def reached(network: nn.Module, head: str) -> set[str]:
    """The parts whose weights the loss of a head moves."""
    network.zero_grad()
    network(features_of(), MASK)[head].square().sum().backward()
    names = {name for name, value in network.named_parameters() if value.grad is not None and value.grad.any()}
    return {name.removeprefix("transformers.").partition(".")[0] for name in names if not name.startswith("heads.")}


def test_each_head_trains_its_own_block() -> None:
    """Nguyen et al.: each block has a loss of its own, of the final prediction both."""
    network = made("gru_transformer", **SMALL, gru_hidden=5)
    assert reached(network, "gru") == {"gru", "of_gru"}
    assert reached(network, "transformer") == {"transformer", "of_transformer"}
    assert reached(network, FINAL) == {"gru", "transformer", "of_both"}
    branches = made("two_transformers", **SMALL, target="features")
    assert reached(branches, "t1") == {"t1"}
    assert reached(branches, "expanded") == {"expansion"}
    assert reached(branches, "t2") == {"t2", "expansion"}
    assert reached(branches, FINAL) == {"t1", "t2", "expansion"}
    assert reached(made("two_transformers", **SMALL, target="t1"), "t2") == {"t1", "t2", "expansion"}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("system", ["gru_transformer", "two_transformers"])
def test_a_causal_decoder_does_not_hear_what_comes(system: str, causal: bool) -> None:
    """By the gradient of its target alone: the encoder hears all rows."""
    network = made(system, **SMALL, causal=causal)
    decoders = [module for module in network.modules() if isinstance(module, EncoderDecoder)]
    assert len(decoders) == (1 if system == "gru_transformer" else 2)
    for decoder in decoders:
        source, target = (torch.randn(B, T, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
        decoder(source, target)[:, 4].square().sum().backward()
        assert target.grad is not None
        seen = target.grad.abs().sum(dim=(0, 2)).nonzero()[:, 0].tolist()
        assert (seen[0], seen[-1]) == ((0, 4) if causal else (0, 7))


@pytest.mark.parametrize("system", ["gru_transformer", "two_transformers"])
def test_the_transformers_width(system: str) -> None:
    """Eight numbers go to two heads as they are, to three by way of nine, and to any other number where one is named."""
    assert made(system, **SMALL).fitted.linear is None
    for params, width in (({"heads": 3}, 9), ({"dim": 8}, 8), ({"dim": 12}, 12)):
        linear = made(system, **{**SMALL, **params}).fitted.linear
        assert (linear.in_features, linear.out_features) == (8, width)


def test_a_causal_tcn_does_not_hear_what_comes() -> None:
    """Without the encoder, which sees all rows."""
    network = made("clip_tcn", d_model=6, blocks=2, head=7)
    assert hears(network) == (0, 4)
    features = features_of()
    before = network(features, MASK)[FINAL]
    changed = {name: torch.cat([x[:, :5], x[:, 5:] + 1], dim=1) for name, x in features.items()}
    after = network(changed, MASK)[FINAL]
    assert torch.equal(after[:, :5], before[:, :5])
    assert not torch.equal(after[0, 5:], before[0, 5:])


@pytest.mark.parametrize("causal", [True, False])
def test_the_tcns_before_the_encoder(causal: bool) -> None:
    channels = {"audio_channels": (4, 3), "visual_channels": (6, 5)}
    network = made("tcn_transformer", **channels, **SMALL, causal=causal, negative_slope=0.1)
    assert [net.dim for net in network.temporal] == [3, 5], "audio channels for what hears, visual ones for what sees"
    for net, x in zip(network.temporal, features_of().values(), strict=True):
        given = x.clone().requires_grad_()
        net(given)[:, 4].sum().backward()
        assert given.grad is not None
        seen = given.grad.abs().sum(dim=(0, 2)).nonzero()[:, 0].tolist()
        assert (seen[0], seen[-1]) == ((0, 4) if causal else (0, 7))


def test_scores_take_the_visual_channels() -> None:
    inputs = Inputs(audio={"mfcc": 3}, scores={"scores": 10}, rows=T, n_outputs=C)
    network = made("tcn_transformer", inputs, audio_channels=(4,), visual_channels=(6,), **SMALL)
    assert [net.dim for net in network.temporal] == [4, 6]


def test_the_heads_norm() -> None:
    channels = {"audio_channels": (4,), "visual_channels": (6,)}
    for head_norm in (True, False):
        network = made("tcn_transformer", **channels, **SMALL, head_norm=head_norm)
        assert any(isinstance(module, nn.BatchNorm1d) for module in network.modules()) is head_norm


def test_layers_of_the_clip_encoder() -> None:
    for layers in (0, 1, 2):
        network = made("clip_tcn", d_model=6, blocks=2, layers=layers, heads=2, feed_forward=16)
        assert sum(isinstance(module, nn.TransformerEncoderLayer) for module in network.modules()) == layers


def test_a_clips_answer_is_of_the_mean_of_its_real_rows() -> None:
    """So that a clip twice as long of the same rows says the same where no row looks at others."""
    inputs = Inputs(audio={"mfcc": 3}, rows=T, n_outputs=C, per_trial=True)
    network = made("clip_tcn", inputs, d_model=6, blocks=1, kernel=1, head=7)
    x = torch.randn(1, 3, 3, dtype=torch.float64)
    alone = network({"mfcc": x}, torch.ones(1, 3, dtype=torch.bool))[FINAL]
    padded = torch.cat([x, x, torch.full((1, 4, 3), 9.0).double()], dim=1)
    twice = network({"mfcc": padded}, torch.arange(10)[None] < 6)[FINAL]
    torch.testing.assert_close(twice, alone, rtol=1e-12, atol=1e-14)
