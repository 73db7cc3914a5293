"""The O-Net embedding against the library's own forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from extractors.contract import Runtime, UInt8
from extractors.visual.onet import ONet, ONetParams


@pytest.fixture(scope="module")
def onet() -> ONet:
    return ONet(ONetParams(), Runtime())


@pytest.fixture(scope="module")
def crops() -> UInt8:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (40, 14, 14, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)


def test_activations_are_the_librarys(onet: ONet, crops: UInt8) -> None:
    """A hook on the library's last hidden layer sees these values, and its heads make its outputs from them."""
    import torch
    from facenet_pytorch.models.mtcnn import ONet as Network
    from facenet_pytorch.models.utils.detect_face import imresample

    network = Network().eval()
    seen = []
    network.prelu5.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with torch.no_grad():
        x = (imresample(torch.from_numpy(crops).permute(0, 3, 1, 2).float(), (48, 48)) - 127.5) * 0.0078125
        box, landmarks, prob = network(x)
        ours = torch.from_numpy(onet.embed(crops))
        # float32 rounding in sums of 1152 products of size one; a wrong order of axes is off by the values themselves (0.1 to 3)
        torch.testing.assert_close(ours, seen[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(network.dense6_2(ours), box, rtol=0, atol=1e-5)
        torch.testing.assert_close(network.dense6_3(ours), landmarks, rtol=0, atol=1e-5)
        torch.testing.assert_close(network.softmax6_1(network.dense6_1(ours)), prob, rtol=0, atol=1e-5)


def test_tells_a_face(onet: ONet, parity: Path) -> None:
    """The library's face head, on our activations of the aligned astronaut, is sure; on noise it is not."""
    import torch
    from facenet_pytorch.models.mtcnn import ONet as Network

    face = np.load(parity / "arcface_align.npz")["crop"]
    noise = np.random.default_rng(0).integers(0, 256, face.shape, dtype=np.uint8)
    network = Network()
    with torch.no_grad():
        values = torch.from_numpy(onet.embed(np.stack([face, noise])))
        prob = network.softmax6_1(network.dense6_1(values))[:, 1]
    assert prob[0] > 0.99
    assert prob[1] < 0.5


def test_a_row_depends_on_its_picture_only(onet: ONet, crops: UInt8) -> None:
    whole = onet.embed(crops)
    assert whole.shape == (40, 256)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(onet.embed(crops[7:8]), whole[7:8])
    np.testing.assert_array_equal(onet.embed(crops[3:]), whole[3:])
    np.testing.assert_array_equal(onet.embed(crops[::-1]), whole[::-1])


def test_no_pictures_and_wrong_pictures(onet: ONet, crops: UInt8) -> None:
    assert onet.embed(crops[:0]).shape == (0, 256)
    with pytest.raises(ValueError, match=r"crops: expected \(N, 112, 112, 3\) uint8, got \(40, 48, 48, 3\)"):
        onet.embed(crops[:, :48, :48])
