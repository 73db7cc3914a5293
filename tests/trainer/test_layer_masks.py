"""One table over all layers: padding changes nothing, to the bit; gradients flow; every length, type and mask is taken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.layers.expansion import ExpandCompress
from trainer.layers.joint_attention import JointCrossAttention, RecursiveJointAttention
from trainer.layers.local_attention import LocalAttention
from trainer.layers.masks import RowNorm, check, masked_mean, zeroed
from trainer.layers.recurrent import Recurrent
from trainer.layers.released_fusion import ReleasedFusion
from trainer.layers.tcn import TemporalBlock, TemporalNet
from trainer.layers.transformer import EncoderDecoder, TransformerEncoder

T, D = 12, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A layer and what it takes: so many inputs of these widths.

    any_length: T is not a dimension of its weights. any_place: the output does not depend on how many rows are before what is real.
    """

    make: Callable[[], nn.Module]
    widths: tuple[int, ...] = (D,)
    any_length: bool = True
    any_place: bool = True
    kept: int | None = D  # width of the output, None for (B, T)


CASES = {
    "tcn_block": Case(make=lambda: TemporalBlock(D, 6, kernel=3, dilation=2), kept=6),
    "tcn_block_centred": Case(make=lambda: TemporalBlock(D, D, kernel=3, dilation=2, causal=False)),
    "tcn": Case(make=lambda: TemporalNet(D, [6, 6, 4], kernel=3), kept=4),
    "tcn_leaky_centred": Case(make=lambda: TemporalNet(D, [6, 6, 4], kernel=5, causal=False, negative_slope=0.01), kept=4),
    "transformer": Case(make=lambda: TransformerEncoder(D, layers=2, heads=2, feed_forward=16), any_place=False),
    "transformer_norm_first": Case(
        make=lambda: TransformerEncoder(D, layers=2, heads=2, feed_forward=16, positions=False, norm_first=True)
    ),
    "encoder_decoder": Case(make=lambda: EncoderDecoder(D, layers=2, heads=2, feed_forward=16), any_place=False, widths=(D, D)),
    "encoder_decoder_both_ways": Case(
        make=lambda: EncoderDecoder(D, layers=1, heads=2, feed_forward=16, causal=False), any_place=False, widths=(D, D)
    ),
    "gru": Case(make=lambda: Recurrent(D, 5, layers=2, dropout=0.3), kept=5),
    "bgru": Case(make=lambda: Recurrent(D, 5, bidirectional=True), kept=10),
    "blstm": Case(make=lambda: Recurrent(D, 5, cell="lstm", layers=2, bidirectional=True), kept=10),
    "local_attention": Case(make=lambda: LocalAttention(D, window=2, heads=2, dropout=0.1)),
    "local_attention_causal": Case(make=lambda: LocalAttention(D, window=3, causal=True)),
    "expansion": Case(make=lambda: ExpandCompress(D)),
    "row_norm": Case(make=lambda: RowNorm(D)),
    "joint_attention": Case(make=lambda: JointCrossAttention(D, 5, T), any_place=False, widths=(D, 5)),
    "recursive_joint_attention": Case(
        make=lambda: RecursiveJointAttention(D, 5, T, iterations=3, dropout=0.2), any_place=False, widths=(D, 5)
    ),
    "released_fusion": Case(
        make=lambda: ReleasedFusion(dim=D, rows=T, iterations=2), widths=(D, 49 * D), any_length=False, any_place=False, kept=None
    ),
}
MASKS = {
    "padding": torch.arange(T) < torch.tensor([[T], [7], [1], [T - 1]]),
    "all_short": torch.arange(T) < torch.tensor([[7], [3], [1], [7]]),
    "gaps": torch.tensor([[i % 3 != row % 3 for i in range(T)] for row in range(4)]),
    "starts_late": torch.arange(T) >= torch.tensor([[3], [0], [T - 1], [6]]),
    "some_empty": torch.arange(T) < torch.tensor([[0], [5], [0], [T]]),
    "none_real": torch.zeros(4, T, dtype=torch.bool),
}
by_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
ANY_LENGTH = [pytest.param(case, id=name) for name, case in CASES.items() if case.any_length]
ANY_PLACE = [pytest.param(case, id=name) for name, case in CASES.items() if case.any_place]
by_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


def inputs(case: Case, n: int = T, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(4, n, width, generator=generator).to(dtype) for width in case.widths]


def outputs(network: nn.Module, *arguments: Any) -> list[Tensor]:
    """The layer's outputs, with dropout that falls in the same way each time."""
    torch.manual_seed(1)
    done = network(*arguments)
    return list(done) if isinstance(done, tuple) else [done]


def made(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.make()


@by_case
@by_mask
@pytest.mark.parametrize("training", [False, True])
def test_what_stands_in_padding_changes_nothing(case: Case, mask: Tensor, training: bool) -> None:
    """Outputs, gradients and running statistics, to the bit, whatever stands there; and what comes out of padding is zero."""
    network = made(case).train(training)
    results = []
    for nonsense in (0.0, torch.nan, 1e30, -torch.inf):
        again = copy.deepcopy(network)
        given = [x.masked_fill(~mask[:, :, None], nonsense).requires_grad_() for x in inputs(case)]
        done = outputs(again, *given, mask)
        sum(((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in done), torch.zeros(())).backward()
        for x in done:
            assert x.isfinite().all()
            assert not x[~mask].any()
        gradients = [value.grad for value in again.parameters() if value.grad is not None]
        reached = [x.grad for x in given if x.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients + reached)
        assert not any(gradient[~mask].any() for gradient in reached)
        statistics = [value.clone() for value in again.buffers()]
        results.append([*done, *gradients, *reached, *statistics])
    for other in results[1:]:
        assert len(other) == len(results[0])
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@by_case
@by_mask
def test_nor_does_it_in_inference(case: Case, mask: Tensor) -> None:
    """Where torch's Transformer goes another way."""
    network, given = made(case).eval(), inputs(case)
    with torch.inference_mode():
        expected = outputs(network, *given, mask)
        for nonsense in (torch.nan, 1e30, -torch.inf):
            done = outputs(network, *(x.masked_fill(~mask[:, :, None], nonsense) for x in given), mask)
            assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(done, expected, strict=True))
    for a, b in zip(expected, outputs(network, *given, mask), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # the other way's float32


def alone_as_padded(case: Case, mask: Tensor) -> None:
    """In float64, as sums come in other orders."""
    network = made(case).double().eval()
    given = inputs(case, dtype=torch.float64)
    together = outputs(network, *given, mask)
    for i in range(4):
        alone = outputs(network, *(x[i : i + 1, mask[i]] for x in given))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i][mask[i]], b[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", ANY_LENGTH)
def test_rows_after_the_end_could_as_well_not_be_there(case: Case) -> None:
    alone_as_padded(case, MASKS["padding"])


@pytest.mark.parametrize("case", ANY_PLACE)
def test_nor_rows_before_the_beginning(case: Case) -> None:
    alone_as_padded(case, MASKS["starts_late"])


@by_case
def test_a_mask_of_all_real_rows_is_none(case: Case) -> None:
    network = made(case).double().eval()
    given = inputs(case, dtype=torch.float64)
    for a, b in zip(outputs(network, *given), outputs(network, *given, torch.ones(4, T, dtype=torch.bool)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@by_case
def test_gradients_reach_every_weight_and_every_real_row(case: Case) -> None:
    network = made(case).double().train()
    mask = MASKS["gaps"]
    given = [x.requires_grad_() for x in inputs(case, dtype=torch.float64)]
    done = outputs(network, *given, mask)
    sum(((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum() for x in done), torch.zeros(())).backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
    for x in given:
        assert x.grad is not None
        assert x.grad.abs().sum(dim=2)[mask].gt(0).float().mean() > 0.8, "a ReLU or dropout may stop some"


@pytest.mark.parametrize(("case", "n"), [(case, n) for case in CASES.values() for n in ((1, 2, T) if case.any_length else (T,))])
def test_shapes(case: Case, n: int) -> None:
    network = made(case).eval()
    done = outputs(network, *inputs(case, n))
    first = (4, n) if case.kept is None else (4, n, case.kept)
    assert tuple(done[0].shape) == first
    if case.kept is not None and hasattr(network, "dim") and isinstance(network.dim, int):
        assert network.dim == case.kept


@by_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_stay_what_they_are(case: Case, dtype: torch.dtype) -> None:
    network = made(case).to(dtype).eval()
    for x in outputs(network, *inputs(case, dtype=dtype), MASKS["padding"]):
        assert x.dtype == dtype
        assert x.isfinite().all()


@by_case
def test_copies_and_saved_states(case: Case) -> None:
    network = made(case).eval()
    given = inputs(case)
    expected = outputs(network, *given, MASKS["padding"])
    loaded = made(case).eval()
    with torch.no_grad():
        for value in loaded.parameters():
            value.add_(1)
    loaded.load_state_dict(network.state_dict())
    for other in (copy.deepcopy(network), loaded):
        assert all(torch.equal(a, b) for a, b in zip(expected, outputs(other, *given, MASKS["padding"]), strict=True))


@by_case
def test_shapes_that_do_not_fit(case: Case) -> None:
    network, given = made(case), inputs(case)
    with pytest.raises(ValueError, match=r"mask: expected \(4, 12\) bool, got \(4, 11\) torch.bool"):
        network(*given, torch.ones(4, 11, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask: expected \(4, 12\) bool, got \(4, 12\) torch.float32"):
        network(*given, torch.ones(4, 12))
    with pytest.raises(ValueError, match=r"x: expected \(B, T, D\), got \(4, 12\)"):
        network(*(x[:, :, 0] for x in given))


def test_a_recurrent_network_passes_over_gaps() -> None:
    """As if the real rows stood one after the other: the backward direction too starts at the last real row."""
    network = Recurrent(D, 5, cell="lstm", bidirectional=True).double()
    x = inputs(CASES["blstm"], dtype=torch.float64)[0]
    mask = MASKS["gaps"]
    done = network(x, mask)
    for i in range(4):
        torch.testing.assert_close(done[i][mask[i]], network(x[i : i + 1, mask[i]])[0])


def test_local_attention_sees_its_window_and_no_more() -> None:
    for causal, expected in ((False, [4, 5, 6, 7, 8]), (True, [4, 5, 6])):
        network = LocalAttention(D, window=2, heads=2, causal=causal).double()
        x = torch.randn(1, T, D, dtype=torch.float64, requires_grad=True)
        network(x)[0, 6].square().sum().backward()
        assert x.grad is not None
        assert x.grad[0].abs().sum(dim=1).nonzero()[:, 0].tolist() == expected
    with pytest.raises(ValueError, match="window: expected 0 or more, got -1"):
        LocalAttention(D, window=-1)


def test_local_attention_by_hand() -> None:
    """softmax(q k / sqrt(d)) v over the window of one row, in one head, then residual and norm."""
    network = LocalAttention(D, window=1).double().eval()
    x = torch.randn(1, T, D, dtype=torch.float64)
    q, k, v = (x[0] @ network.attention.in_proj_weight.T + network.attention.in_proj_bias).chunk(3, dim=1)
    weights = (q[3] @ k[2:5].T / D**0.5).softmax(dim=0)
    expected = network.norm(x[0, 3] + network.attention.out_proj(weights @ v[2:5]))
    torch.testing.assert_close(network(x)[0, 3], expected)


def test_layers_of_a_transformer_do_not_begin_alike() -> None:
    network = TransformerEncoder(D, layers=2, heads=2, feed_forward=16)
    first, second = network.encoder.layers
    for name, weight in first.named_parameters():
        assert weight.ndim == 1 or not torch.equal(weight, second.get_parameter(name)), name


def test_a_target_s_later_rows_are_not_seen() -> None:
    network = EncoderDecoder(D, layers=2, heads=2, feed_forward=16).double().eval()
    source, target = inputs(CASES["encoder_decoder"], dtype=torch.float64)
    target.requires_grad_()
    network(source, target)[0, 5].square().sum().backward()
    assert target.grad is not None
    assert target.grad[0].abs().sum(dim=1).nonzero()[:, 0].tolist() == list(range(6))


def test_row_norm_is_batch_normalisation_of_the_real_rows() -> None:
    network, plain, mask = RowNorm(D).double(), nn.BatchNorm1d(D).double(), MASKS["gaps"]
    for seed in range(3):
        x = torch.randn(4, T, D, generator=torch.Generator().manual_seed(seed)).double()
        torch.testing.assert_close(network(x, mask)[mask], plain(x[mask]))
    assert network.running_var is not None
    torch.testing.assert_close(network.running_var, plain.running_var)
    one = torch.zeros(4, T, dtype=torch.bool)
    one[2, 3] = True
    torch.testing.assert_close(network(x, one)[2, 3], plain.eval()(x[2, 3][None])[0])
    torch.testing.assert_close(network.running_var, plain.running_var)
    assert not network(x, MASKS["none_real"]).any()


def test_means_over_real_rows() -> None:
    x, mask = torch.randn(4, T, D), MASKS["some_empty"]
    found = masked_mean(x.masked_fill(~mask[:, :, None], torch.nan), mask)
    torch.testing.assert_close(found[1], x[1, :5].mean(dim=0))
    assert not found[[0, 2]].any()
    torch.testing.assert_close(masked_mean(x), x.mean(dim=1))
    check(x, mask)
    assert zeroed(x, None) is x


def test_an_unknown_cell() -> None:
    with pytest.raises(ValueError, match="cell: expected one of gru, lstm, got 'rnn'"):
        Recurrent(D, 5, cell="rnn")  # type: ignore[arg-type]
