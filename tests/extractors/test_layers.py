"""Layers that threads share: the values of whole layers, in parts of fixed size whoever computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.layers import CONVOLVED_STEPS, LINEAR_STEPS, divided
from extractors.threads import Crew


class Counted:
    """Shares nothing, and counts the parts of each layer."""

    def __init__(self) -> None:
        self.parts: list[int] = []

    def share(self, work: Callable[[int], None], items: Iterable[int]) -> list[None]:
        given = list(items)
        self.parts.append(len(given))
        return [work(item) for item in given]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def apart(compute: Callable[[], Tensor]) -> tuple[Tensor, Tensor, list[int]]:
    """What it gives whole, what it gives divided, and in how many parts each layer was."""
    counted = Counted()
    with torch.inference_mode():
        whole = compute()
        with divided(counted.share):
            found = compute()
    return whole, found, counted.parts


def assert_near(found: Tensor, whole: Tensor) -> None:
    """Sums of a thousand products in another order: some units in the last place of the largest of them."""
    assert found.shape == whole.shape
    assert found.dtype == whole.dtype
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-6 * float(whole.abs().max()) + 1e-7)


@pytest.mark.parametrize("shape", [(1, 2 * LINEAR_STEPS + 7, 96), (LINEAR_STEPS, 96), (3, 5, 96), (96,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = nn.Linear(96, 40, bias=bias), drawn(*shape)
    whole, found, parts = apart(lambda: layer(x))
    assert_near(found, whole)
    assert parts == [-(-(x.numel() // 96) // LINEAR_STEPS)]


def test_linear_of_what_does_not_lie_in_memory_row_by_row() -> None:
    layer, x = nn.Linear(64, 30), drawn(1, 64, 300)
    whole, found, parts = apart(lambda: layer(x.transpose(1, 2)))
    assert_near(found, whole)
    assert parts == [3]


@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": 10, "stride": 5},
        {"kernel_size": 3, "stride": 2, "bias": False},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 1},
        {"kernel_size": 128, "padding": 64, "groups": 4},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("n", [1, 2])
def test_convolutions_over_time(how: dict[str, Any], n: int) -> None:
    """The last part is a short one."""
    layer, x = nn.Conv1d(8, 12, **how), drawn(n, 8, 5 * CONVOLVED_STEPS + 211)
    whole, found, parts = apart(lambda: layer(x))
    assert_near(found, whole)
    assert parts == [-(-whole.shape[-1] // CONVOLVED_STEPS)]
    assert whole.shape[-1] % CONVOLVED_STEPS


@pytest.mark.parametrize("how", [{"padding": "same"}, {}], ids=str)
def test_convolutions_that_stay_whole(how: dict[str, Any]) -> None:
    """Padding that is not a number; few steps; sound without a dimension for its number."""
    layer = nn.Conv1d(8, 12, 3, **how)
    for x in (drawn(1, 8, 2 * CONVOLVED_STEPS), drawn(1, 8, 60), drawn(8, 2 * CONVOLVED_STEPS))[0 if how else 1 :]:
        whole, found, parts = apart(lambda x=x: layer(x))
        assert torch.equal(found, whole)
        assert parts == []


@pytest.mark.parametrize("mask", [None, "for all heads", "per head", "without heads", "causal"])
def test_attention(mask: str | None) -> None:
    query, key, value = drawn(1, 4, 70, 16), drawn(1, 4, 90, 16), drawn(1, 4, 90, 24)
    shape = {"for all heads": (1, 1, 70, 90), "per head": (1, 4, 70, 90), "without heads": (70, 90)}.get(mask or "")
    named: dict[str, Any] = {"attn_mask": drawn(*shape)} if shape else {"is_causal": mask == "causal"}
    whole, found, parts = apart(lambda: functional.scaled_dot_product_attention(query, key, value, scale=0.3, **named))
    assert_near(found, whole)
    assert parts == [4]


def test_attention_with_fewer_keys_than_heads_stays_whole() -> None:
    query, key = drawn(1, 4, 70, 16), drawn(1, 2, 70, 16)
    whole, found, parts = apart(lambda: functional.scaled_dot_product_attention(query, key, key, enable_gqa=True))
    assert torch.equal(found, whole)
    assert parts == []


def test_how_many_threads_there_are_decides_nothing() -> None:
    """The largest parts go to whoever is free; each is one thread's."""
    network = nn.Sequential(nn.Conv1d(16, 64, 5), nn.GELU(), nn.Flatten(2), nn.Linear(4 * CONVOLVED_STEPS, 333))
    x, before = drawn(1, 16, 4 * CONVOLVED_STEPS + 4), torch.get_num_threads()
    found = []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            with torch.inference_mode(), divided(Crew(n).map):
                found.append(network(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_an_error_of_a_layer_reaches_the_caller_and_afterwards_layers_are_whole() -> None:
    counted = Counted()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), torch.inference_mode(), divided(counted.share):
        functional.linear(drawn(5, 7), drawn(3, 8))
    assert counted.parts == [1]
    functional.linear(drawn(5, 7), drawn(3, 7))
    assert counted.parts == [1]
