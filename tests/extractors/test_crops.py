"""Crops cut on threads: the right faces, in order, in both codings and templates, in bounded memory, and no error is lost."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from extractors.contract import Float32, UInt8
from extractors.face import alignment, crops, jpeg
from extractors.face.alignment import TEMPLATE_112
from extractors.face.crops import CropForm, Cutter
from extractors.face.spool import Spool

RAW = CropForm(size_px=112, coding="raw")


def picture(number: int, side_px: int = 240) -> UInt8:
    return np.full((side_px, side_px, 3), number % 251, np.uint8)


def faces(*corners: float) -> tuple[Float32, Float32]:
    """Boxes and landmarks of faces of 112 px that lie as the template does, with these places as their upper left corners."""
    at = np.array(corners, np.float32).reshape(-1, 1)
    return np.concatenate([at, at, at + 112, at + 112], axis=1), TEMPLATE_112.astype(np.float32) + at[:, None]


def cut(form: CropForm, *pictures: tuple[UInt8, Float32, Float32]) -> Spool:
    with Cutter(form) as cutter:
        for image, boxes, landmarks in pictures:
            cutter.add(image, boxes, landmarks)
        return cutter.finish()


def add_forever(form: CropForm) -> None:
    with Cutter(form) as cutter:
        while True:
            cutter.add(picture(0), *faces(0))


def n_threads() -> int:
    return sum(thread.name.startswith("crops") for thread in threading.enumerate())


def test_crops_come_in_the_order_of_their_faces() -> None:
    """Faces that take long to cut are followed by faces that do not."""
    rng = np.random.default_rng(0)
    places = [[0.0] * int(rng.integers(0, 30 if i % 7 == 0 else 3)) for i in range(200)]
    spool = cut(RAW, *((picture(i), *faces(*corners)) for i, corners in enumerate(places)))
    expected = [i % 251 for i, corners in enumerate(places) for _ in corners]
    assert [spool.read(n)[0] for n in range(len(spool))] == expected
    assert set(spool.sizes().tolist()) == {112 * 112 * 3}
    assert n_threads() == 0


def test_raw_crops_are_the_pixels_and_jpegs_are_them_but_for_the_coding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 240, 3), dtype=np.uint8)
    image = np.repeat(np.repeat(image[::8, ::8], 8, axis=0), 8, axis=1)
    raw = cut(RAW, (image, *faces(0, 100)))
    for number, corner in enumerate((0, 100)):
        crop = np.frombuffer(raw.read(number), np.uint8).reshape(112, 112, 3)
        np.testing.assert_array_equal(crop, image[corner : corner + 112, corner : corner + 112])
    coded = cut(CropForm(size_px=112, jpeg_quality=80), (image, *faces(100)))
    assert coded.read(0) == jpeg.encode(image[100:212, 100:212], 80)


def test_a_box_is_cut_as_a_square_with_its_margin() -> None:
    """A box of 40 x 60 with a fifth of 60 on each end is the square of 84 about its middle, here in its own size."""
    image = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    box, landmarks = np.array([[80, 50, 120, 110]], np.float32), faces(60)[1]
    spool = cut(CropForm(size_px=84, template="box", margin=0.2, coding="raw"), (image, box, landmarks))
    crop = np.frombuffer(spool.read(0), np.uint8).reshape(84, 84, 3)
    np.testing.assert_array_equal(crop, image[38:122, 58:142])


@pytest.mark.parametrize("template", ["arcface", "box"])
def test_faces_without_a_place_have_no_crop(template: Any) -> None:
    boxes, landmarks = faces(0, 10, 20, 30, 40)
    boxes[1, 2], landmarks[2, 3, 0] = np.nan, np.inf
    boxes[3, 2:], landmarks[3] = boxes[3, :2], 7.0
    spool = cut(CropForm(size_px=48, template=template), (picture(9), boxes, landmarks))
    assert (spool.sizes() > 0).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("template", ["arcface", "box"])
def test_a_crop_does_not_depend_on_its_company(template: Any) -> None:
    """To the last bit, however many faces go through the alignment together."""
    rng = np.random.default_rng(2)
    boxes = np.sort(rng.uniform(0, 200, (37, 2, 2)), axis=1).reshape(37, 4).astype(np.float32)
    landmarks = (TEMPLATE_112 + rng.normal(0, 9, (37, 5, 2))).astype(np.float32)
    form = CropForm(size_px=112, template=template, margin=0.1 if template == "box" else 0.0)
    together = form.matrices(boxes, landmarks)[0]
    for start in range(0, 37, 4):
        part = slice(start, start + 1 + start // 8)
        np.testing.assert_array_equal(form.matrices(boxes[part], landmarks[part])[0], together[part])


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives faces waits for slow threads: never are more pictures held than may wait, and one chunk in each thread."""
    held: list[int] = []
    most = 0

    class Counted(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            held.pop()

    def slow(*_: Any) -> UInt8:
        time.sleep(0.002)
        return picture(0, 112)

    monkeypatch.setattr(crops, "WAITING", 20)
    monkeypatch.setattr(alignment, "warp", slow)
    with Cutter(RAW) as cutter:
        for i in range(120):
            held.append(i)
            cutter.add(picture(i).view(Counted), *faces(0))
            most = max(most, len(held))
        assert len(cutter.finish()) == 120
    assert most <= 20 + crops.TOGETHER
    assert held == []


@pytest.mark.parametrize(("threads", "used"), [(1, 1), (2, 2), (9, 2)])
def test_it_uses_no_more_threads_than_it_may(threads: int, used: int) -> None:
    with Cutter(RAW, threads) as cutter:
        for i in range(4 * crops.TOGETHER):
            cutter.add(picture(i), *faces(0))
        assert len(cutter.finish()) == 4 * crops.TOGETHER
        assert n_threads() == used


def test_large_pictures_wait_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops, "WAITING_BYTES", 3 * 240 * 240 * 3)
    spool = cut(RAW, *((picture(i), *faces(0)) for i in range(50)))
    assert [spool.read(n)[0] for n in range(50)] == list(range(50))


def test_an_error_of_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: UInt8, *_: Any) -> UInt8:
        raise MemoryError(f"picture {image[0, 0, 0]}")

    monkeypatch.setattr(alignment, "warp", broken)
    with pytest.raises(MemoryError, match="picture 0"):
        cut(RAW, (picture(0), *faces(0)))
    assert n_threads() == 0
    with pytest.raises(MemoryError, match="picture 0"):
        add_forever(RAW)
    assert n_threads() == 0


def test_an_error_of_the_caller_ends_the_threads() -> None:
    def stop(cutter: Cutter) -> None:
        for i in range(30):
            cutter.add(picture(i), *faces(0, 1, 2))
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"), Cutter(RAW) as cutter:
        stop(cutter)
    assert n_threads() == 0


def test_a_spool_may_be_read_and_written_in_turn() -> None:
    spool = Spool()
    for i in range(300):
        assert spool.append(bytes([i % 256]) * (i * 37 % 5000)) == i
        assert spool.read(i // 2) == bytes([i // 2 % 256]) * (i // 2 * 37 % 5000)
    assert spool.sizes().tolist() == [i * 37 % 5000 for i in range(300)]
    with pytest.raises(IndexError, match="expected a number below 300, got 300"):
        spool.read(300)
