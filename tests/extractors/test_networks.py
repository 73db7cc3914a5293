"""P-, R- and O-Net: compiled or in half precision they are the networks of facenet-pytorch, and loading them tells nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

from extractors.face import networks
from extractors.face.kernels import MEAN, SCALE
from extractors.face.networks import load_networks

# Per network the shapes that it is given: one, a few, as many as the cascade gives it; for P-Net the smallest, narrow ones, odd ones.
SHAPES = [
    (PNet, (1, 12, 12)),
    (PNet, (3, 13, 47)),
    (PNet, (2, 96, 61)),
    (PNet, (1, 200, 301)),
    (RNet, (1, 24, 24)),
    (RNet, (7, 24, 24)),
    (RNet, (64, 24, 24)),
    (ONet, (1, 48, 48)),
    (ONet, (5, 48, 48)),
    (ONet, (16, 48, 48)),
]
# The largest difference of any output: of moves and points, shares of a box's side up to 0.9, and of probabilities. Measured on these
# pictures: 2e-7, 4.4e-2 (a probability that is 0.33) and 3.5e-3.
TOLERANCE = {"float32": 1e-6, "bfloat16": 8e-2, "float16": 8e-3}

ROOT = Path(__file__).resolve().parents[2]

# Whatever would reach for the network fails and is told; a library may swallow the error, so it is also noted.
ALONE = """
import socket, sys
tried = []
def refuse(*address):
    tried.append(address)
    raise OSError("no network")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
import threading
import torch
torch.set_num_threads(1)
from extractors.face.networks import load_networks
networks = load_networks("cpu", "float32")
networks.onet(torch.zeros(1, 3, 48, 48))
assert "openvino" in sys.modules
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(5)
assert not tried, tried
assert sys.modules.get("openvino_telemetry") is None
print([name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module is not None])
"""


def pictures(n: int, height: int, width: int) -> torch.Tensor:
    """(n, 3, height, width) float32 from -1 to 1: noise on slopes, so that there is something to see at every scale."""
    rng = np.random.default_rng(n * height + width)
    slope = np.linspace(0, 200, height)[:, None, None] * rng.random((n, 1, 1, 3)) + np.linspace(0, 50, width)[:, None]
    noise = rng.random((n, height, width, 3)) * rng.random((n, 1, 1, 1)) * 150
    pixels = torch.from_numpy((slope + noise).clip(0, 255).astype(np.float32)).permute(0, 3, 1, 2).contiguous()
    return (pixels - MEAN) * SCALE


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_is_the_reference(precision: str) -> None:
    loaded = load_networks("cpu", precision)
    for reference, shape in SHAPES:
        pixels = pictures(*shape)
        with torch.inference_mode():
            expected = reference().eval()(pixels)
            found = getattr(loaded, reference.__name__.lower())(pixels)
        assert [out.shape for out in found] == [out.shape for out in expected]
        assert {out.dtype for out in found} == {torch.float32}
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE[precision])


def test_what_it_gave_stays_when_it_runs_again() -> None:
    """A compiled network may give out its own memory: it must be another one for every run."""
    onet = load_networks("cpu", "float32").onet
    first = onet(pictures(3, 48, 48))
    kept = [out.clone() for out in first]
    onet(-pictures(3, 48, 48))
    for out, copy in zip(first, kept, strict=True):
        assert torch.equal(out, copy)


def test_a_picture_does_not_depend_on_the_others() -> None:
    """Within float32's noise: the order of additions may depend on how many there are."""
    loaded = load_networks("cpu", "float32")
    for network, side_px in ((loaded.pnet, 31), (loaded.rnet, 24), (loaded.onet, 48)):
        pixels = pictures(9, side_px, side_px)
        together = network(pixels)
        for i in (0, 4, 8):
            for one, many in zip(network(pixels[i : i + 1]), together, strict=True):
                torch.testing.assert_close(one[0], many[i], rtol=0, atol=1e-6)


def test_loading_opens_no_connection() -> None:
    """OpenVINO brings telemetry along: its module is not imported, and no socket is asked for an address or a connection."""
    argv = [sys.executable, "-c", ALONE]
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_large_inputs_do_not_go_round_all_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy stays as large as its largest input: another shape of that size goes to a copy that had such a one."""
    monkeypatch.setattr(networks, "COPIES", 3)
    made = iter("abcd")
    requests = networks._Requests(lambda: next(made))
    used = []
    for side_px in (10, 12, 90, 80, 70, 11, 90, 60):
        with requests.lent((1, 3, side_px, side_px)) as copy:
            used.append(copy)
    assert used == ["a", "b", "c", "c", "c", "b", "c", "c"]


def test_as_many_copies_as_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "COPIES", 1)
    made = iter("abc")
    requests = networks._Requests(lambda: next(made))
    with requests.lent((1,)) as first, requests.lent((1,)) as second:
        assert (first, second) == ("a", "b")
    with requests.lent((2,)) as first, requests.lent((2,)) as second:
        assert {first, second} == {"a", "b"}


# Makes and drops networks, also on a thread, and then tells whether the memory is still there that signals are heard on.
SIGNALLED = """
import ctypes, gc, signal, sys, threading
import torch
from extractors.face.networks import load_networks

class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def look():
    networks = load_networks("cpu", "float32")
    networks.onet(torch.zeros(1, 3, 48, 48))

thread = threading.Thread(target=look)
for made in (look, thread.start, thread.join, look, gc.collect, look, gc.collect):
    made()
stack = Stack()
assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
areas = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in open("/proc/self/maps")]
there = any(start <= (stack.at or 0) and (stack.at or 0) + stack.size <= end for start, end in areas)
heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
if there or not stack.at:
    signal.raise_signal(signal.SIGUSR1)
print("there" if there else "none" if not stack.at else "gone", len(heard), end="")
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what memory is there is looked up in /proc")
def test_signals_are_heard_after_networks_were_dropped() -> None:
    """Python handles signals on the stack that is put up for that, and it must not have been taken away."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) in ((0, "there 1"), (0, "none 1")), done.stdout + done.stderr
