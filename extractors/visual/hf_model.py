"""`hf:NAME`: any image encoder that transformers can build from a saved model's folder, with the folder's own preprocessing."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from extractors.contract import ExtractorError, Float32, Kind, Runtime, UInt8
from extractors.hub import SavedModel
from extractors.networks import forward, place
from extractors.saved_model import quiet
from extractors.threads import one_torch_thread
from extractors.visual.crops import check_crops
from extractors.weights import FOLDER_FILES, FOLDER_TENSORS

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
RESAMPLE = {2: "pil_bilinear", 3: "pil_bicubic"}  # by Pillow's numbers
CLASS_TOKEN = ("cls_token", "class_embedding")  # what transformers' networks call it
UNUSED = ("pooler.", "vision_model.pooler.")  # a head that is not read, and in many checkpoints was never trained


@dataclass(frozen=True, slots=True, kw_only=True)
class HfModelParams:
    """pool: of the last hidden state the first token (the class token, of models that have one), or the mean over all tokens or places."""

    pool: Literal["cls", "mean"] = "cls"

    def __post_init__(self) -> None:
        if self.pool not in ("cls", "mean"):
            raise ValueError(f"pool: expected 'cls' or 'mean', got {self.pool!r}")


@functools.cache
def hf_model(name: str) -> type:
    """The extractor class of a model of Hugging Face, NAME or OWNER/NAME. Raises ExtractorError for what is no such name.

    Whether there is such a model is known only when its folder is read: any folder whose files are that model's will do.
    """
    if not NAME.fullmatch(name):
        raise ExtractorError(f"no model {name!r} on Hugging Face", why="it is no name", fix="write OWNER/NAME, as facebook/dino-vits16")

    class HfModel(_HfModel):
        pass

    HfModel.name = f"hf:{name}"
    HfModel.origin = f"https://huggingface.co/{name}"
    HfModel.licence = f"that of https://huggingface.co/{name}"
    HfModel.hub = staticmethod(lambda params: SavedModel(name))
    HfModel.__doc__ = f"The image encoder {name} of Hugging Face, pooled."
    return HfModel


class _HfModel:
    """What the classes of all models share.

    Source: Wolf et al., "Transformers: state-of-the-art natural language processing", EMNLP 2020, and the model's own paper.
    """

    version: ClassVar[int] = 2
    Params: ClassVar[type] = HfModelParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    name: ClassVar[str]
    origin: ClassVar[str]
    licence: ClassVar[str]
    hub: ClassVar[Any]
    batch = 64

    @staticmethod
    def reads(params: HfModelParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    def __init__(self, params: HfModelParams, runtime: Runtime) -> None:
        if runtime.weights is None:
            raise ValueError(f"{self.name}: expected a saved model's folder, got none")
        model, self._processor = _read(runtime.weights)
        self.size_px, self.resample = _size_px(self._processor, model.config, runtime.weights), _resample(self._processor, runtime.weights)
        self._runtime, self.dim = runtime, 0
        try:
            self._network = place(_pooled(model, params.pool), runtime)
            self.dim = self._tried(runtime.weights)
        except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:  # of a model of something else
            if "OutOfMemory" in type(error).__name__:
                raise  # says nothing about the model
            why = f"it gives no vector for a picture ({_first_line(error)})"
            raise _refused(runtime.weights, why, "take a model of pictures") from error

    def _tried(self, folder: Path) -> int:
        """The length of what it gives for a picture. Raises ExtractorError where that is not the same each time."""
        grey = np.arange(self.size_px, dtype=np.float32) * (255 / self.size_px)
        ramp = np.broadcast_to(grey[None, None, :, None], (1, self.size_px, self.size_px, 3)).astype(np.uint8)
        first, second = self._forward(ramp), self._forward(ramp)
        if first.ndim != 2:
            raise ValueError(f"an array of {first.shape}")
        if np.abs(first - second).max() > 1e-3 * first.std():
            why = "it gives other values for the same picture each time, as one that hides parts at random"
            raise _refused(folder, why, "take a model that does not")
        return int(first.shape[1])

    def embed(self, crops: UInt8) -> Float32:
        """(N, size_px, size_px, 3) uint8 RGB -> (N, dim) float32. The folder's preprocessing does what follows the resizing."""
        check_crops(crops, self.size_px)
        return self._forward(crops) if len(crops) else np.empty((0, self.dim), np.float32)

    def _forward(self, crops: UInt8) -> Float32:
        # Resizing stays on: it finds the pictures to be of its size already, and some preprocessing crops only where it resizes.
        with one_torch_thread():
            ready = self._processor(images=list(crops), return_tensors="pt", input_data_format="channels_last")["pixel_values"].numpy()
        return forward(self._network, ready, self._runtime)


def _read(folder: Path) -> tuple[Any, Any]:
    """The model on the CPU and its image processor, from a folder's files alone and nothing else; no code of the folder is run."""
    if not folder.is_dir():
        raise _refused(
            folder, "it is a file", f"give the folder in which the model was saved: {', '.join(FOLDER_FILES[:2])} and its weights"
        )
    if not any((folder / file).is_file() for file in FOLDER_TENSORS):
        raise _refused(folder, f"it has no {' or '.join(FOLDER_TENSORS)}", "save the model in one file (save_pretrained, max_shard_size)")
    try:
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise _refused(folder, str(error), "pip install 'affectpipe[hub]'") from error
    only: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with tempfile.TemporaryDirectory() as seen:
        for file in FOLDER_FILES:  # what the folder's digest is made of: other files would change the output, and no key
            if (folder / file).is_file():
                Path(seen, file).symlink_to((folder / file).resolve())
        try:
            with quiet():
                read: Any = AutoImageProcessor.from_pretrained  # it has no types
                processor = read(seen, **only)
                model, found = AutoModel.from_pretrained(seen, output_loading_info=True, ignore_mismatched_sizes=True, **only)
        except MemoryError:
            raise
        except (
            Exception
        ) as error:  # of what they meet in a folder, they raise OSError, ValueError, KeyError, RuntimeError, SafetensorError, ...
            raise _refused(folder, f"{type(error).__name__}: {_first_line(error)}".replace(seen, str(folder)), FETCH) from error
    _check_loaded(folder, model, found)
    return model, processor


def _check_loaded(folder: Path, model: nn.Module, found: Mapping[str, Any]) -> None:
    """Raises ExtractorError unless every tensor of the model is the folder's, and the folder has no other of the model's parts."""
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(UNUSED))
    if missing:
        raise _refused(folder, f"{len(missing)} tensors are missing ({', '.join(missing[:4])})", FETCH)
    if found["mismatched_keys"]:
        unlike = [f"{key} {tuple(got)}, expected {tuple(expected)}" for key, got, expected in sorted(found["mismatched_keys"])]
        raise _refused(folder, f"{len(unlike)} tensors are of another shape ({', '.join(unlike[:4])})", FETCH)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    own = {name for name, _ in model.named_children()} | {"embeddings", "encoder", "layers", "layernorm"}
    parts = [key for key in sorted(found["unexpected_keys"]) if key.startswith(prefix) or key.partition(".")[0] in own]
    parts = [key for key in parts if not key.removeprefix(prefix).startswith(UNUSED)]  # other unexpected ones are heads
    if parts:
        raise _refused(folder, f"{len(parts)} tensors are of another network ({', '.join(parts[:4])})", FETCH)


def _pooled(model: Any, pool: str) -> nn.Module:
    """The encoder of pictures with one vector per picture."""
    from torch import nn

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = getattr(model, "vision_model", model)  # of a model of pictures and text, its half
            if pool == "cls" and not any(key.rpartition(".")[2] in CLASS_TOKEN for key, _ in self.model.named_parameters()):
                raise ValueError("it has no class token: set pool to mean")

        def forward(self, pixels: Tensor) -> Tensor:
            hidden: Tensor = self.model(pixel_values=pixels).last_hidden_state
            if pool == "cls":
                return hidden[:, 0]
            return hidden.mean(dim=(2, 3) if hidden.ndim == 4 else 1)

    return Pooled()


def _size_px(processor: Any, config: Any, folder: Path) -> int:
    """The side to which the preprocessing resizes a square picture, before it cuts out its middle."""
    if getattr(processor, "do_resize", False):
        side = _side(processor.size)
        ratio = getattr(processor, "crop_pct", None)  # ConvNeXt's: small pictures are the middle of larger ones
        if side and ratio and side < 384:
            side = int(side / ratio)
    elif getattr(processor, "do_center_crop", False):
        side = _side(processor.crop_size)
    else:
        side = _side(getattr(config, "image_size", None))
    if side is None:
        raise _refused(folder, "its preprocessing does not make square pictures of one size", "take a model that does")
    return side


def _side(size: Any) -> int | None:
    """Of a size as the libraries write it: a number, (height, width), or a record of height and width or of an edge. None: not square."""
    if isinstance(size, int):
        return size
    if isinstance(size, list | tuple):
        return int(size[0]) if len(set(size)) == 1 else None
    height, width, edge = (
        size.get(key) if isinstance(size, Mapping) else getattr(size, key, None) for key in ("height", "width", "shortest_edge")
    )
    if edge:
        return int(edge)
    return int(height) if height and height == width else None


def _resample(processor: Any, folder: Path) -> str:
    if not getattr(processor, "do_resize", False):
        return "area"
    number = int(processor.resample)
    if number not in RESAMPLE:
        raise _refused(
            folder, f"its preprocessing resizes with Pillow's filter {number}", "take a model that is bilinear (2) or bicubic (3)"
        )
    return RESAMPLE[number]


FETCH = "give the folder of a whole image encoder, as save_pretrained writes it"


def _refused(folder: Path, why: str, fix: str) -> ExtractorError:
    return ExtractorError(f"saved model {folder} cannot be used", why=why, fix=fix)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
