"""The layers of a network on one long sequence, divided among threads in parts of fixed size.

A batch is divided by its rows; but a sequence that a network hears as a whole is one row. What takes its time there are linear layers,
convolutions over time and attention: each of them is computed part by part, every part by one thread. How many there are decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# Steps of a sequence in a part, of linear layers and of convolutions: enough for a product to be as fast as a whole one.
LINEAR_STEPS, CONVOLVED_STEPS = 128, 1024
# As `map`: applies a function to every item, on several threads perhaps, each with one thread of torch's.
Share = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]


def divided(share: Share) -> AbstractContextManager[Any]:
    """In here the layers of any network that this thread runs without gradients are divided."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    def each(fill: Callable[[int], None], starts: Iterable[int]) -> None:
        def filling(start: int) -> None:
            with torch.inference_mode():  # a setting that every thread has for itself
                fill(start)

        for _ in share(filling, starts):
            pass

    kinds = {
        functional.linear: partial(_linear, each),
        functional.conv1d: partial(_convolved, each),
        functional.scaled_dot_product_attention: partial(_attention, each),
    }

    class Divided(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return kinds.get(function, function)(*args, **(kwargs or {}))

    return Divided()


Each = Callable[[Callable[[int], None], Iterable[int]], None]


def _linear(each: Each, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., n) -> (..., m), some steps at a time."""
    from torch.nn.functional import linear

    steps = x.reshape(-1, x.shape[-1])
    out = steps.new_empty(len(steps), len(weight))

    def fill(start: int) -> None:
        some = slice(start, start + LINEAR_STEPS)
        out[some] = linear(steps[some], weight, bias)

    each(fill, range(0, len(steps), LINEAR_STEPS))
    return out.view(*x.shape[:-1], len(weight))


def _convolved(
    each: Each, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """(N, channels, S) -> (N, channels, steps), some steps at a time, each part from what its steps see."""
    from torch.nn.functional import conv1d, pad

    (step,), (apart,) = _one(stride), _one(dilation)
    seen = (weight.shape[-1] - 1) * apart + 1
    n_steps = 0 if isinstance(padding, str) else (x.shape[-1] + 2 * _one(padding)[0] - seen) // step + 1
    if n_steps <= CONVOLVED_STEPS or x.ndim != 3:
        return conv1d(x, weight, bias, stride, padding, dilation, groups)
    padded = pad(x, _one(padding) * 2)
    out = x.new_empty(len(x), len(weight), n_steps)

    def fill(start: int) -> None:
        stop = min(start + CONVOLVED_STEPS, n_steps)
        some = padded[..., start * step : (stop - 1) * step + seen]
        out[..., start:stop] = conv1d(some, weight, bias, stride, 0, dilation, groups)

    each(fill, range(0, n_steps, CONVOLVED_STEPS))
    return out


def _one(value: Any) -> tuple[int]:
    return (value,) if isinstance(value, int) else tuple(value)


def _attention(each: Each, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *rest: Any, **named: Any) -> Tensor:
    """(N, heads, S, n) -> (N, heads, S, m), head by head."""
    from torch.nn.functional import scaled_dot_product_attention

    if query.ndim != 4 or not query.shape[1] == key.shape[1] == value.shape[1]:
        return scaled_dot_product_attention(query, key, value, attn_mask, *rest, **named)
    out = query.new_empty(*query.shape[:-1], value.shape[-1])
    per_head = attn_mask is not None and attn_mask.ndim == 4 and attn_mask.shape[1] > 1

    def fill(head: int) -> None:
        one = slice(head, head + 1)
        mask = attn_mask[:, one] if attn_mask is not None and per_head else attn_mask
        out[:, one] = scaled_dot_product_attention(query[:, one], key[:, one], value[:, one], mask, *rest, **named)

    each(fill, range(query.shape[1]))
    return out
