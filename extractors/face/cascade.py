"""MTCNN over batches of pictures: facenet-pytorch's three networks and weights, and everything between them on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from extractors.contract import Float32, Frames, Int64, UInt8
from extractors.face.areas import Areas, PixelAreas, Summer, crop_cells
from extractors.face.candidates import Candidates, edges_inside, moved, overlaps, square, suppress, suppress_inside
from extractors.face.cuts import Cuts
from extractors.face.detector import Found, Seen
from extractors.face.networks import Network, load_networks
from extractors.face.pyramid import Patches, Pyramid
from extractors.threads import ahead, crew, one_torch_thread

if TYPE_CHECKING:
    from torch import Tensor

# Zhang et al., arXiv 1604.02878, with the thresholds of facenet-pytorch 2.5.3.
R_THRESHOLD, O_THRESHOLD, OVERLAP = 0.7, 0.7, 0.7
R_PX, O_PX = 24, 48
# Crops that go through R- and O-Net at once: a crowd takes more turns, not more memory. On a processor they fit its caches, and are few
# enough to be shared among threads.
R_BATCH = {"cpu": 32, "cuda": 2048}
O_BATCH = {"cpu": 8, "cuda": 1024}
# So many sizes of a batch there are.
SIZES = 4
# Beyond so many threads it is the steps between the networks that take the time.
MAX_THREADS = 8
# Pixels of pictures whose sums are held at once, 12 bytes each.
PIXELS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}
# Around an expected face: candidates that overlap it by less are others'; of those that R-Net lets pass, as many as this, the
# nearest to the expected square, are shown to O-Net.
NEAR_OVERLAP = 0.1
CONFIRMED_PER_FACE = 8
# R-Net moves candidates beyond what P-Net saw; this share of that is added on each side.
ROOM = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Spotted:
    """The faces of one picture, and squares: (K, 4) float32, what O-Net saw of each, which says where to look in the next picture."""

    found: Found
    squares: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Faces:
    """K faces on the device: what O-Net made of the squares (K, 4) of pictures (K,). boxes: (K, 4); score: (K,); landmarks: (K, 5, 2)."""

    picture: Tensor
    squares: Tensor
    boxes: Tensor
    score: Tensor
    landmarks: Tensor


class Cascade:
    """Finds faces of min_face_px and more. precision: that of the networks; sums, means and boxes lose nothing by it.

    On a processor patches and crops go through the networks in fixed batches, which the threads share: threads inside networks so small
    spend their time waiting for each other. How many there are changes nothing.
    """

    def __init__(self, *, min_face_px: int, device: str, precision: str = "float32", threads: int = 1) -> None:
        import torch

        self.device, self._kind = device, torch.device(device).type
        networks = load_networks(device, precision)
        self._share = crew(min(threads, MAX_THREADS) if self._kind == "cpu" else 1).map
        self._pyramid = Pyramid(network=networks.pnet, min_face_px=min_face_px, share=self._share)
        self._rnet, self._onet = networks.rnet, networks.onet
        self._summed = Summer(device, self._share)

    def search(self, images: Sequence[UInt8] | UInt8) -> list[Spotted]:
        """(H, W, 3) uint8 pictures of one size -> every face in each, the largest first. One picture does not depend on the others."""
        spotted: list[Spotted] = []
        with self._exactly():
            for part in self._parts(images):
                spotted += _by_picture(self._anywhere(images[part]), len(images[part]))
        return spotted

    def look(self, images: Sequence[UInt8] | UInt8, expected: Sequence[Float32]) -> list[Spotted]:
        """The faces near the expected squares, (R, 4) for each picture: nearly always the very ones that `search` finds."""
        spotted: list[Spotted] = []
        with self._exactly():
            for part in self._parts(images):
                spotted += _by_picture(self._near(images[part], *_numbered(expected[part])), len(images[part]))
        return spotted

    def check(self, images: Sequence[UInt8] | UInt8, squares: Sequence[Float32]) -> list[Spotted]:
        """What O-Net alone makes of the squares, (R, 4) for each picture: as many faces, in their order, however improbable."""
        if not len(images):
            return []
        with self._exactly():
            return _by_picture(self._at(images, *_numbered(squares)), len(images), as_given=True)

    def _parts(self, images: Sequence[UInt8] | UInt8) -> list[slice]:
        at_once = max(PIXELS_AT_ONCE[self._kind] // (images[0].shape[0] * images[0].shape[1]), 1) if len(images) else 1
        return [slice(start, start + at_once) for start in range(0, len(images), at_once)]

    @contextlib.contextmanager
    def _exactly(self) -> Iterator[None]:
        """Without gradients. On a GPU convolutions by a fixed algorithm and in true float32, where the default is TF32.

        On a processor torch's own work here is small steps, which its threads would spend most of their time waiting to begin.
        """
        import torch
        from torch.backends import cudnn

        on_gpu = self._kind == "cuda"
        exact = cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False) if on_gpu else one_torch_thread()
        with torch.inference_mode(), exact:
            yield

    def _anywhere(self, images: Sequence[UInt8] | UInt8) -> _Faces:
        height, width, _ = images[0].shape
        areas = self._summed(images)
        candidates = self._pyramid.candidates(areas, self._pyramid.everything(height, width, len(images)), height, width)
        return self._confirmed(areas, self._refined(areas, candidates))

    def _near(self, images: Sequence[UInt8] | UInt8, picture: Int64, expected: Float32) -> _Faces:
        import torch

        height, width, _ = images[0].shape
        plan = self._pyramid.around(height, width, picture, expected)
        areas = self._summed(images, _shown(plan, len(images), height, width), np.arange(len(images)))
        candidates = self._pyramid.candidates(areas, plan, height, width)
        place, squares = torch.from_numpy(picture).to(self.device), torch.from_numpy(expected).to(self.device)
        refined = self._refined(areas, candidates[(_overlap(candidates, place, squares) > NEAR_OVERLAP).any(dim=1)])
        if len(refined) and len(squares):
            refined = refined[_nearest(refined, place, squares)]
        return self._confirmed(areas, refined)

    def _at(self, images: Sequence[UInt8] | UInt8, picture: Int64, squares: Float32) -> _Faces:
        import torch

        height, width, _ = images[0].shape
        low = np.clip(squares[:, :2].astype(np.int64) - 1, 0, [width - 1, height - 1])
        high = np.clip(squares[:, 2:].astype(np.int64), low + 1, [width, height])
        # O-Net alone looks at each place once: on a processor a table of sums would not pay.
        areas = PixelAreas(images) if self._kind == "cpu" else self._summed(images)
        place, boxes, edges = (torch.from_numpy(part).to(self.device) for part in (picture, squares, np.concatenate([low, high], axis=1)))
        score, moves, points = self._judged(self._onet, areas, place, edges, O_PX, O_BATCH)
        return _Faces(picture=place, squares=boxes, boxes=moved(boxes, moves), score=score, landmarks=_landmarks(boxes, points))

    def _refined(self, areas: Areas, candidates: Candidates) -> Candidates:
        """What R-Net lets pass of P-Net's candidates: squares."""
        edges, inside = edges_inside(candidates.boxes, areas.limits[candidates.picture])
        candidates = candidates[inside]
        score, moves = self._judged(self._rnet, areas, candidates.picture, edges[inside], R_PX, R_BATCH)
        passing = score > R_THRESHOLD
        found = Candidates(picture=candidates.picture[passing], boxes=candidates.boxes[passing], score=score[passing])
        kept = suppress(found, OVERLAP)
        found = found[kept]
        return Candidates(picture=found.picture, boxes=square(moved(found.boxes, moves[passing][kept])), score=found.score)

    def _confirmed(self, areas: Areas, refined: Candidates) -> _Faces:
        """What O-Net lets pass of R-Net's squares."""
        edges, inside = edges_inside(refined.boxes, areas.limits[refined.picture])
        refined = refined[inside]
        score, moves, points = self._judged(self._onet, areas, refined.picture, edges[inside], O_PX, O_BATCH)
        boxes, landmarks = moved(refined.boxes, moves), _landmarks(refined.boxes, points)
        passing = (score > O_THRESHOLD).nonzero()[:, 0]
        found = Candidates(picture=refined.picture[passing], boxes=boxes[passing], score=score[passing])
        kept = passing[suppress_inside(found, OVERLAP)]
        return _Faces(
            picture=refined.picture[kept], squares=refined.boxes[kept], boxes=boxes[kept], score=score[kept], landmarks=landmarks[kept]
        )

    def _judged(
        self, network: Network, areas: Areas, picture: Tensor, edges: Tensor, size_px: int, batch: dict[str, int]
    ) -> tuple[Tensor, ...]:
        """Per (K, 4) edges: the network's score (K,), its moves (K, 4), and O-Net's points (K, 10)."""
        import torch

        n = len(edges)
        if not n:  # the networks cannot take an empty batch: one crop whose outcome nobody reads
            picture, edges = picture.new_zeros(1), areas.limits[:1]
        sizes = _turns(len(edges), batch[self._kind])
        filled = torch.arange(sum(sizes), device=edges.device).clamp(max=len(edges) - 1)
        turns = zip(torch.split(picture[filled], sizes), torch.split(crop_cells(edges[filled], size_px), sizes), strict=True)
        outcomes = self._share(lambda turn: network(areas.means(*turn, size_px, size_px)), turns)
        moves, *points, prob = (torch.cat(parts)[:n] for parts in zip(*outcomes, strict=True))
        return prob[:, 1], moves, *points


def _turns(n: int, most: int) -> list[int]:
    """Sizes of the turns in which n crops go through a network: few different ones, since a compiled network has to prepare for each,
    and an even number of turns, so that two threads end together. The last turn is filled up."""
    step = max(most // SIZES, 1)
    n_steps = -(-n // step)
    n_turns = min(2 * -(-n_steps * step // (2 * most)), n_steps)
    return [(n_steps * (i + 1) // n_turns - n_steps * i // n_turns) * step for i in range(n_turns)]


class Spotter(Protocol):
    """A Cascade, or what does as one does."""

    def search(self, images: Sequence[UInt8] | UInt8) -> list[Spotted]: ...

    def look(self, images: Sequence[UInt8] | UInt8, expected: Sequence[Float32]) -> list[Spotted]: ...

    def check(self, images: Sequence[UInt8] | UInt8, squares: Sequence[Float32]) -> list[Spotted]: ...


class EveryFrame:
    """Searches the whole of every frame, as facenet-pytorch does."""

    def __init__(self, cascade: Spotter) -> None:
        self.cascade = cascade

    def find(self, batches: Iterable[Frames]) -> Iterator[Seen]:
        cuts = Cuts()
        for frames, spotted in ahead(lambda frames: (frames, self.cascade.search(frames.images)), batches):
            for i, one in enumerate(spotted):
                image, time_s, frame = frames.images[i], float(frames.times_s[i]), int(frames.index[i])
                yield Seen(image=image, time_s=time_s, frame=frame, found=one.found, shot=cuts.shot(image))


def _numbered(squares: Sequence[Float32]) -> tuple[Int64, Float32]:
    """Per picture some squares -> (R,) the picture's number for each square, and (R, 4) all of them."""
    picture = np.repeat(np.arange(len(squares)), [len(some) for some in squares]).astype(np.int64)
    return picture, np.concatenate([np.zeros((0, 4), np.float32), *squares])


def _shown(plan: Sequence[Patches], n: int, height: int, width: int) -> Int64:
    """(n, 4) x1 y1 x2 y2: of each picture the part that the planned patches show, and some room; one pixel where there is no patch."""
    parts = np.tile(np.array([width - 1, height - 1, 1, 1]), (n, 1))
    for patches in plan:
        seen = patches.seen(height, width)
        np.minimum.at(parts[:, :2], patches.picture, seen[:, :2])
        np.maximum.at(parts[:, 2:], patches.picture, seen[:, 2:])
    room = (ROOM * (parts[:, 2:] - parts[:, :2])).clip(min=0).astype(np.int64)
    low = np.clip(parts[:, :2] - room, 0, None)
    return np.concatenate([low, np.clip(parts[:, 2:] + room, low + 1, [width, height])], axis=1)


def _overlap(candidates: Candidates, picture: Tensor, squares: Tensor) -> Tensor:
    """(K, R) intersection over union with each expected square, 0 in another picture."""
    return overlaps(candidates.boxes, squares) * (candidates.picture[:, None] == picture[None])


def _nearest(refined: Candidates, picture: Tensor, squares: Tensor) -> Tensor:
    """(K,) bool: the candidates that are among the nearest to one of the expected squares."""
    import torch

    away = (refined.boxes[:, None] - squares[None]).abs().sum(dim=2)
    away = torch.where(_overlap(refined, picture, squares) > NEAR_OVERLAP, away, torch.inf)
    limit = away.topk(min(CONFIRMED_PER_FACE, len(refined)), dim=0, largest=False).values[-1]
    return ((away <= limit) & away.isfinite()).any(dim=1)


def _landmarks(squares: Tensor, points: Tensor) -> Tensor:
    """(K, 10) shares of the square, five x then five y -> (K, 5, 2) in source pixels."""
    sides = squares[:, 2:] - squares[:, :2] + 1
    return sides[:, None] * points.view(-1, 2, 5).transpose(1, 2) + squares[:, None, :2] - 1


def _by_picture(faces: _Faces, n: int, *, as_given: bool = False) -> list[Spotted]:
    """To the host, once: picture by picture, the largest face first or in the order given."""
    tensors = (faces.picture, faces.boxes, faces.score, faces.landmarks, faces.squares)
    picture, boxes, prob, landmarks, squares = (part.cpu().numpy() for part in tensors)
    area_px = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.lexsort((np.arange(len(picture)) if as_given else -area_px, picture))
    bounds = np.searchsorted(picture[order], np.arange(n + 1))
    parts = [order[start:stop] for start, stop in pairwise(bounds.tolist())]
    return [Spotted(found=Found(boxes=boxes[part], prob=prob[part], landmarks=landmarks[part]), squares=squares[part]) for part in parts]
