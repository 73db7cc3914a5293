"""Running a network on a processor: in parts of fixed size, each in one thread of torch's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extractors.contract import Runtime
from extractors.networks import PART, forward, forward_whole, place
from extractors.threads import Crew, crew


@pytest.fixture(autouse=True)
def three_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Watched(nn.Module):
    """Gives each row's mean, and notes what it was given and where."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.threads: set[int] = set()
        self.torch_threads: set[int] = set()
        self.modes: set[tuple[bool, torch.dtype]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        self.threads.add(threading.get_ident())
        self.torch_threads.add(torch.get_num_threads())
        self.modes.add((torch.is_inference_mode_enabled(), x.dtype))
        assert x.data_ptr() % 64 == 0, "in memory of torch's own"
        return x.flatten(1).mean(dim=1, keepdim=True)


def rows(n: int, *shape: int) -> Any:
    return np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("n", "sizes"), [(0, [0]), (1, [1]), (PART, [PART]), (PART + 1, [PART, 1]), (3 * PART - 2, [PART, PART, PART - 2])]
)
def test_a_batch_goes_through_in_parts(n: int, sizes: list[int], threads: int) -> None:
    network, batch = Watched(), rows(n, 2, 5)
    values = forward(network, batch, Runtime(threads=threads))
    assert sorted(network.seen) == sorted((size, 2, 5) for size in sizes)
    assert network.torch_threads == {1}
    assert network.modes == {(True, torch.float32)}
    assert torch.get_num_threads() == 3
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:, 0], batch.reshape(n, 10).mean(axis=1), rtol=0, atol=1e-6)


def test_a_part_may_have_another_size() -> None:
    network = Watched()
    forward(network, rows(5, 3), Runtime(), part=2)
    assert network.seen == [(2, 3), (2, 3), (1, 3)]


def test_parts_are_shared_among_threads() -> None:
    """Two that wait for each other in the middle of their parts."""
    meeting = threading.Barrier(2, timeout=20)

    class Meeting(Watched):
        def forward(self, x: Tensor) -> Tensor:
            meeting.wait()
            return super().forward(x)

    network = Meeting()
    forward(network, rows(2 * PART, 3), Runtime(threads=2))
    assert len(network.threads) == 2


def test_layouts_and_precisions_of_the_input() -> None:
    """Whatever view of an array it is: turned, from back to front, doubles."""
    network, batch = Watched(), rows(3, 4, 6)
    expected = forward(network, np.ascontiguousarray(batch.transpose(0, 2, 1)), Runtime())
    for view in (batch.transpose(0, 2, 1), batch[:, ::-1].transpose(0, 2, 1)[:, :, ::-1], batch.transpose(0, 2, 1).astype(np.float64)):
        np.testing.assert_array_equal(forward(network, view, Runtime()), expected)
    for precision in ("bfloat16", "float16"):
        half = forward(place(Watched(), Runtime(precision=precision)), batch, Runtime(precision=precision))
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, expected, rtol=0, atol=2e-2)


def test_a_long_sequence_is_one_call_with_its_layers_divided() -> None:
    """More steps than a part of a layer has, so that several threads have work."""
    network = nn.Sequential(Watched(), nn.Identity())
    long = nn.Sequential(nn.Conv1d(1, 8, 3), nn.Linear(2998, 40))
    sound = rows(1, 1, 3000)
    found = [forward_whole(long, sound, Runtime(threads=threads)) for threads in (1, 4)]
    assert found[0].tobytes() == found[1].tobytes()
    with torch.inference_mode():
        np.testing.assert_allclose(found[0], long(torch.from_numpy(sound)).numpy(), rtol=0, atol=1e-5)
    forward_whole(network, sound, Runtime(threads=4))
    assert network[0].seen == [(1, 1, 3000)]
    assert network[0].torch_threads == {1}
    assert torch.get_num_threads() == 3


def test_torch_has_its_threads_again_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        forward(nn.Linear(4, 4), rows(3, 5), Runtime(threads=2))
    assert torch.get_num_threads() == 3


def test_a_crew_s_threads_have_one_of_torch_s_each() -> None:
    """Threads that torch has met before with as many as the process may have, too."""
    meeting, ours = threading.Barrier(2, timeout=20), Crew(2)

    def told(number: int) -> int:
        meeting.wait()
        return torch.get_num_threads()

    assert ours.map(told, range(2)) == [1, 1]
    assert ours.map(told, range(2)) == [1, 1]
    assert torch.get_num_threads() == 3


def test_there_is_one_crew_of_a_size() -> None:
    assert crew(2) is crew(2)
    assert crew(2) is not crew(3)


def test_no_threads_are_no_runtime() -> None:
    with pytest.raises(ValueError, match=r"^Runtime\.threads: expected 1 or more, got 0$"):
        Runtime(threads=0)
