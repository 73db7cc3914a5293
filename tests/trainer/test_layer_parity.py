"""Layers against what the reference implementations compute; the limit is the fixtures' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainer.layers.expansion import ExpandCompress
from trainer.layers.joint_attention import JointCrossAttention, RecursiveJointAttention
from trainer.layers.released_fusion import ReleasedFusion
from trainer.layers.tcn import TemporalBlock, TemporalNet
from trainer.layers.transformer import PositionalEncoding

TCNS: dict[str, Callable[[], nn.Module]] = {
    "tcn_block": lambda: TemporalBlock(24, 32, kernel=5, dilation=2),
    "tcn_net": lambda: TemporalNet(24, [32, 32, 16], kernel=3),
    "tcn_net_sucv": lambda: TemporalNet(128, [64, 64, 32, 32], kernel=5, dropout=0.1, negative_slope=0.01),
}


@pytest.mark.parametrize("name", TCNS)
@pytest.mark.parametrize("masked", [False, True])
def test_tcn(name: str, masked: bool, reference: Callable[[str], Any]) -> None:
    """The published state has each convolution twice, of which the second, net.0 and net.4, counts."""
    known, network = reference(name), TCNS[name]().eval()
    network.load_state_dict({key.replace("net.0.", "conv1.").replace("net.4.", "conv2."): value for key, value in known.tensors.items()})
    x = torch.from_numpy(known.arrays["input"]).transpose(1, 2)
    with torch.inference_mode():
        found = network(x, torch.ones(x.shape[:2], dtype=torch.bool) if masked else None)
    assert known.error(found.transpose(1, 2).numpy(), "output") < known.limit


@pytest.mark.parametrize("masked", [False, True])
def test_released_fusion(masked: bool, reference: Callable[[str], Any]) -> None:
    known, network = reference("rja_cam"), ReleasedFusion().eval()
    network.load_state_dict(known.tensors)
    audio, visual = (torch.from_numpy(known.arrays[name].astype(np.float32)) for name in ("audio", "visual"))
    with torch.inference_mode():
        valence, arousal = network(audio, visual, torch.ones(2, 16, dtype=torch.bool) if masked else None)
    assert known.error(valence.numpy(), "valence") < known.limit
    assert known.error(arousal.numpy(), "arousal") < known.limit


def test_released_attention_where_it_bends() -> None:
    """The fixture's numbers are so small that a tanh does not show in them.

    K = X^T W_k + b, S = tanh(K Q / sqrt(d)), H = ReLU(tanh(V S)), X + ReLU(W H + b), after the description of the released code.
    """
    torch.manual_seed(0)
    layer = ReleasedFusion(dim=6, rows=4).double().eval().coattn.dcn_layers[0]
    with torch.no_grad():
        for value in layer.parameters():
            value.normal_(0, 2)
    clips = {1: torch.randn(2, 4, 6, dtype=torch.float64), 2: torch.randn(2, 4, 6, dtype=torch.float64)}  # 1 is visual, 2 audio
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    done = layer(clips[1], clips[2], None)
    for clip in range(2):
        query = linear("dense_coattn.query_linear", np.concatenate([clips[1][clip], clips[2][clip]], axis=1))
        for which, x in ((1, clips[1][clip].numpy()), (2, clips[2][clip].numpy())):
            scores = np.tanh(linear(f"dense_coattn.key{which}_linear", x.T) @ query / np.sqrt(12))
            attended = np.maximum(np.tanh(linear(f"dense_coattn.value{which}_linear", x) @ scores), 0)
            expected = x + np.maximum(linear(f"linears.{which - 1}.0", attended), 0)
            np.testing.assert_allclose(done[which - 1][clip].detach().numpy(), expected, rtol=1e-12, atol=1e-13)


def test_a_weight_is_its_norm_times_its_direction() -> None:
    """w = g v / ||v||, the norm over inputs and kernel, per output: doubling v changes nothing, doubling g doubles the convolution."""
    block = TemporalBlock(3, 3, kernel=2).double().eval()
    direction, norm = block.conv1.parametrizations.weight.original1, block.conv1.parametrizations.weight.original0
    assert norm.shape == (3, 1, 1)
    before = block.conv1.weight.clone()
    with torch.no_grad():
        torch.testing.assert_close(before, norm * direction / direction.flatten(1).norm(dim=1)[:, None, None])
        direction.mul_(2)
        torch.testing.assert_close(block.conv1.weight, before)
        norm.mul_(2)
        torch.testing.assert_close(block.conv1.weight, 2 * before)


@pytest.mark.parametrize(("causal", "back", "ahead"), [(True, 28, 0), (False, 14, 14)])
def test_what_a_row_of_a_tcn_sees(causal: bool, back: int, ahead: int) -> None:
    """1 + 2 (k - 1) (2^L - 1) rows, 29 of kernel 3 and three levels: all of them up to itself, or centred on it; by which rows have a
    gradient."""
    torch.manual_seed(0)
    network = TemporalNet(2, [4, 4, 4], kernel=3, causal=causal, negative_slope=0.1).double().eval()  # a leak lets every path count
    x = torch.randn(1, 80, 2, dtype=torch.float64, requires_grad=True)
    network(x)[0, 40].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(dim=1).nonzero()[:, 0]
    assert (int(seen[0]), int(seen[-1]), len(seen)) == (40 - back, 40 + ahead, back + ahead + 1)


def test_an_even_kernel_keeps_the_length() -> None:
    block = TemporalBlock(2, 2, kernel=4, dilation=3, causal=False, negative_slope=0.1).double().eval()
    x = torch.randn(1, 60, 2, dtype=torch.float64, requires_grad=True)
    done = block(x)
    assert done.shape == (1, 60, 2)
    done[0, 30].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(dim=1).nonzero()[:, 0]
    assert (int(seen[0]), int(seen[-1])) == (30 - 2 * 6, 30 + 2 * 3), "of each convolution two before and one after, three apart"


def joint_attention_by_hand(layer: JointCrossAttention, audio: np.ndarray, visual: np.ndarray) -> list[np.ndarray]:
    """Equations 1 to 4 of the paper for one clip in NumPy, element by element where they are sums."""
    both = np.concatenate([audio, visual], axis=1)
    made = []
    for x, part in ((audio, layer.audio), (visual, layer.visual)):
        w_j, w_c, w_h = (getattr(part, name).detach().numpy() for name in ("w_joint", "w_correlation", "w_attention"))
        n, dim, d = len(x), x.shape[1], both.shape[1]
        correlation = np.zeros((dim, d))
        for i in range(dim):
            for j in range(d):
                pairs = [x[a, i] * w_j[a, b] * both[b, j] for a in range(n) for b in range(n)]
                correlation[i, j] = np.tanh(sum(pairs) / np.sqrt(d))
        attention = np.maximum(np.einsum("ti,ik,kj->tj", x, w_c, correlation), 0)
        made.append(x + np.einsum("tj,ji->ti", attention, w_h))
    return made


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_joint_attention_follows_the_equations(iterations: int) -> None:
    torch.manual_seed(iterations)
    network = RecursiveJointAttention(3, 4, 5, iterations=iterations).double()
    audio, visual = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    done = network(audio, visual)
    for clip in range(2):
        expected = [audio[clip].numpy(), visual[clip].numpy()]
        for layer in network.iterations:
            expected = joint_attention_by_hand(layer, *expected)  # type: ignore[arg-type]
        for found, wanted in zip(done, expected, strict=True):
            np.testing.assert_allclose(found[clip].detach().numpy(), wanted, rtol=1e-12, atol=1e-13)  # float64, sums in another order
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters() if name.startswith("iterations.0.audio")}
    assert sorted(shapes.values()) == [(3, 3), (5, 5), (7, 3)]
    assert len(list(network.parameters())) == 6 * iterations, "each iteration has its own"


def test_fewer_rows_are_as_many_padded() -> None:
    network = RecursiveJointAttention(3, 4, 8).double()
    audio, visual = torch.randn(1, 5, 3, dtype=torch.float64), torch.randn(1, 5, 4, dtype=torch.float64)
    short = network(audio, visual)
    mask = torch.arange(8)[None] < 5
    padded = network(*(torch.cat([x, torch.full((1, 3, x.shape[2]), torch.nan)], dim=1).double() for x in (audio, visual)), mask)
    for a, b in zip(short, padded, strict=True):
        torch.testing.assert_close(a, b[:, :5])
    with pytest.raises(ValueError, match="iterations: expected 1 or more, got 0"):
        RecursiveJointAttention(3, 4, 8, iterations=0)
    with pytest.raises(ValueError, match="x: expected at most 8 rows, got 9"):
        network(torch.zeros(1, 9, 3).double(), torch.zeros(1, 9, 4).double())


def test_positions_are_sines_and_cosines() -> None:
    """PE(t, 2i) = sin(t / 10000^(2i / d)), PE(t, 2i + 1) = cos of the same; float32 angles of up to 300 are exact to 3e-5."""
    for dim in (8, 7):
        found = PositionalEncoding(dim)(torch.zeros(1, 300, dim))[0]
        t, i = np.arange(300)[:, None], np.arange(dim)
        angle = t / 10000 ** (2 * (i // 2) / dim)
        np.testing.assert_allclose(found.numpy(), np.where(i % 2, np.cos(angle), np.sin(angle)), rtol=0, atol=3e-5)
    half = PositionalEncoding(8).half()(torch.zeros(1, 300, 8, dtype=torch.float16))[0]
    np.testing.assert_allclose(half.float().numpy(), PositionalEncoding(8)(torch.zeros(1, 300, 8))[0].numpy(), rtol=0, atol=5e-4)


def test_expansion_is_initialised_as_he_et_al() -> None:
    """Deviation sqrt(2 / n_in): of 200,000 weights it is known to 0.2 %, five deviations of that are 1 %."""
    torch.manual_seed(0)
    layer = ExpandCompress(400, factor=1.5)
    assert (tuple(layer.expand.weight.shape), tuple(layer.compress.weight.shape)) == ((600, 400), (400, 600))
    assert float(layer.expand.weight.detach().std()) == pytest.approx((2 / 400) ** 0.5, rel=0.01)
    assert float(layer.compress.weight.detach().std()) == pytest.approx((2 / 600) ** 0.5, rel=0.01)
    assert not layer.expand.bias.any()
    x = torch.randn(2, 3, 400)
    wide = np.maximum(x.numpy() @ layer.expand.weight.detach().numpy().T, 0)
    expected = np.maximum(wide @ layer.compress.weight.detach().numpy().T, 0)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-4, atol=1e-4)  # float32 sums of 600 numbers of size 1
