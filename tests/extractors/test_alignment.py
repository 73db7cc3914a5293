"""Alignment against insightface's own matrices and crop, and against transforms of known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from extractors.face.alignment import TEMPLATE_112, similarity, square, template, warp


def test_parity_with_insightface(parity: Path) -> None:
    expected = np.load(parity / "arcface_align.npz")
    matrices, usable = similarity(expected["landmarks"], 112)
    assert usable.all()
    assert np.abs(matrices - expected["matrices"]).max() <= 1e-4  # the fixture's own limit
    crop = warp(expected["image"], matrices[0], 112)
    assert crop.shape == (112, 112, 3)
    assert np.abs(crop.astype(int) - expected["crop"]).mean() <= 1.0  # fixed-point bilinear differs between OpenCV builds


@pytest.mark.parametrize("size_px", [48, 112, 160])
def test_known_rotation_scale_and_shift_are_undone(size_px: int) -> None:
    rng = np.random.default_rng(0)
    angle, scale, shift = rng.uniform(-np.pi, np.pi, 50), rng.uniform(0.3, 8, 50), rng.uniform(-500, 500, (50, 1, 2))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    landmarks = scale[:, None, None] * TEMPLATE_112 @ turn + shift
    matrices, usable = similarity(landmarks, size_px)
    assert usable.all()
    moved = landmarks @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]
    np.testing.assert_allclose(moved, np.broadcast_to(template(size_px), moved.shape), atol=1e-8)


def test_is_the_least_squares_similarity() -> None:
    """Against the normal equations, solved by a general routine, for landmarks that no similarity maps exactly."""
    landmarks = TEMPLATE_112 * 2 + np.random.default_rng(1).normal(0, 6, (5, 2))
    x, y = landmarks.T
    one, zero = np.ones(5), np.zeros(5)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, shift_x, shift_y = np.linalg.lstsq(system, TEMPLATE_112.T.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(similarity(landmarks[None], 112)[0][0], [[a, -b, shift_x], [b, a, shift_y]], rtol=1e-9)


def test_landmarks_without_direction_are_not_usable() -> None:
    same, broken = np.full((5, 2), 30.0), np.full((5, 2), np.nan)
    matrices, usable = similarity(np.stack([same, broken, TEMPLATE_112 * 3]), 112)
    assert usable.tolist() == [False, False, True]
    assert np.isnan(matrices[:2]).all()
    assert np.isfinite(matrices[2]).all()


def test_no_landmarks_and_wrong_shapes() -> None:
    matrices, usable = similarity(np.zeros((0, 5, 2)), 112)
    assert matrices.shape == (0, 2, 3)
    assert usable.shape == (0,)
    with pytest.raises(ValueError, match=r"landmarks: expected \(N, 5, 2\), got \(5, 2\)"):
        similarity(TEMPLATE_112, 112)


def test_outside_the_picture_is_black() -> None:
    white = np.full((100, 100, 3), 255, dtype=np.uint8)
    crop = warp(white, np.array([[1.0, 0.0, 56.0], [0.0, 1.0, 0.0]]), 112)
    assert not crop[:, :50].any()
    assert (crop[:90, 60:] == 255).all()


@pytest.mark.parametrize("margin", [0.0, 0.25])
@pytest.mark.parametrize("size_px", [40, 90, 300])
def test_a_square_is_the_resized_part_of_the_picture(size_px: int, margin: float) -> None:
    """Against OpenCV's own scaling of the cut-out part, which has the same half-pixel centres: bilinear in fixed point, so one
    level of grey apart, and only inside, for at the edge `resize` repeats pixels where warping sees the picture go on."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), dtype=np.uint8)
    matrices, usable = square(np.array([[100, 60, 180, 120]], np.float32), size_px, margin)
    assert usable.all()
    side = round(80 * (1 + 2 * margin))
    x, y = 140 - side // 2, 90 - side // 2
    expected = cv2.resize(image[y : y + side, x : x + side], (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    rim = int(np.ceil(size_px / side)) + 1
    inside = slice(rim, size_px - rim)
    got = warp(image, matrices[0], size_px)
    assert np.abs(got.astype(int) - expected)[inside, inside].max() <= 2


def test_a_square_keeps_proportions_and_goes_past_the_picture() -> None:
    matrices, usable = square(np.array([[-30, 10, 10, 110], [0, 0, 100, 40]], np.float32), 50, 0.0)
    assert usable.all()
    np.testing.assert_allclose(matrices[:, 0, 0], matrices[:, 1, 1])
    np.testing.assert_allclose(matrices[:, [0, 1], [1, 0]], 0)
    np.testing.assert_allclose(matrices[:, 0, 0], 0.5)  # the longer side of both is 100
    white = np.full((200, 200, 3), 255, dtype=np.uint8)
    crop = warp(white, matrices[0], 50)  # its square is from -60 to 40: three fifths are left of the picture
    assert not crop[:, :29].any()
    assert (crop[:, 31:] == 255).all()


def test_boxes_without_a_size_are_not_usable() -> None:
    nan, inf = np.nan, np.inf
    boxes = np.array([[0, 0, 9, 0], [5, 0, 4, 9], [0, 0, nan, 9], [-inf, 0, inf, 9], [0, 0, 1, 1]], np.float32)
    matrices, usable = square(boxes, 112, 0.0)
    assert usable.tolist() == [False] * 4 + [True]
    assert np.isnan(matrices[:4]).any(axis=(1, 2)).all()
    assert square(np.zeros((0, 4), np.float32), 112, 0.0)[0].shape == (0, 2, 3)
    with pytest.raises(ValueError, match=r"boxes: expected \(N, 4\), got \(4,\)"):
        square(np.zeros(4, np.float32), 112, 0.0)
