"""What Google did to VGGish's output for AudioSet: a rotation and whitening, and 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extractors.contract import ExtractorError, Float32, Float64

if TYPE_CHECKING:
    from torch import Tensor

DIM = 128
SHAPES = {"pca_eigen_vectors": (DIM, DIM), "pca_means": (DIM, 1)}
LIMIT = 2.0  # standard deviations that the 8 bits span to each side
LEVELS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitening:
    """eigen_vectors: (128, 128) float64, a row per output; means: (128, 1) float64, of the input."""

    eigen_vectors: Float64
    means: Float64

    def apply(self, embeddings: Float32) -> Float32:
        """(N, 128) -> (N, 128) float32, whole numbers from 0 to 255: -2 or less, to 2 or more.

        In float64, and row by row: a matrix product's last bits depend on how many rows there are, and perhaps on NumPy's threads.
        """
        centred = embeddings.astype(np.float64) - self.means[:, 0]
        whitened = np.stack([(self.eigen_vectors * row).sum(axis=1) for row in centred]) if len(centred) else centred
        levels: Float32 = np.rint((np.clip(whitened, -LIMIT, LIMIT) + LIMIT) * (LEVELS / (2 * LIMIT))).astype(np.float32)
        return levels


def read(path: Path) -> Whitening:
    """From the published file. Raises ExtractorError where it holds anything but the two arrays."""
    try:
        held = _loaded(path)
        arrays = {name: np.asarray(held[name], np.float64).reshape(shape) for name, shape in SHAPES.items()}
        if len(held) != len(arrays) or not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError(f"it holds {len(held)} arrays, expected {len(arrays)}, and finite numbers")
    except OSError as error:
        fix = "put it beside the network's file, under its published name"
        raise ExtractorError(f"weights {path} cannot be loaded", why=error.strerror or str(error), fix=fix) from error
    except Exception as error:  # a damaged file makes the reader raise almost anything
        said = (str(error).strip() or "no reason given").splitlines()[0].split(". ")[0]  # what follows is advice to load it unsafely
        why = f"{type(error).__name__}: {said}"
        raise ExtractorError(f"weights {path} cannot be loaded", why=why, fix="fetch it again") from error
    return Whitening(eigen_vectors=arrays["pca_eigen_vectors"], means=arrays["pca_means"])


def _loaded(path: Path) -> dict[str, Tensor | Float64]:
    """Runs nothing that is in the file but the making of arrays: it was written by other hands as NumPy's, not torch's."""
    import torch

    make: Any = np.ndarray.__reduce__(np.empty(0))[0]  # NumPy's own function, wherever it lies
    names = [(make, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    plain = [np.ndarray, np.dtype, type(np.dtype(np.float32)), type(np.dtype(np.float64))]
    with torch.serialization.safe_globals([*names, *plain]):
        held: dict[str, Tensor | Float64] = torch.load(path, map_location="cpu", weights_only=True)
    return held
