"""The contract between extractors and whoever runs them: what each kind of extractor offers. The records are in `contract`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from extractors.contract import (
    Bool,
    Clips,
    Detections,
    Faces,
    Float32,
    Float64,
    Frames,
    Int64,
    Kind,
    Person,
    RootHolds,
    Rows,
    Track,
    UInt8,
    Waveform,
)

if TYPE_CHECKING:
    from torch import nn

    from extractors.hub import Source
    from extractors.weights import Layout


class Extractor(Protocol):
    """What every extractor class has. `version` is raised whenever the output's bits change.

    Params: a frozen, keyword-only dataclass of bool, int, float, str, None, Literal and tuples of them, with a default for each.
    yields: what comes out. reads(params): the kinds that go in, the main one first; none for what reads the source itself.
    decoder: what decodes for it ("pyav", "ffmpeg", or the user's "openface"), whose version is then part of the key.
    needs_weights: a weight file must be given. origin: where that file comes from. licence: of the output's terms of use.
    It may also have on_gpu: bool, whether it computes on `Runtime.device`; else those do that need weights or know several precisions.
    It may also have batch: int, how many pictures, clips or windows it takes at once, which is halved where memory runs out.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    Params: ClassVar[type]
    yields: ClassVar[Kind]
    decoder: ClassVar[str | None]
    precisions: ClassVar[tuple[str, ...]]
    needs_weights: ClassVar[bool]
    origin: ClassVar[str]
    licence: ClassVar[str]

    @staticmethod
    def reads(params: Any) -> tuple[Kind, ...]: ...


class TimelineExtractor(Extractor, Protocol):
    def rows(self, source_times_s: Float64) -> Rows:
        """(F,) presentation times of the decoded frames -> the rows of the timeline."""
        ...


class WaveformExtractor(Extractor, Protocol):
    rate_hz: int

    def condition(self, waveform: Waveform) -> Waveform: ...


class WeightedExtractor(Extractor, Protocol):
    """One whose weights are a file of tensors."""

    layout: ClassVar[Layout]

    @staticmethod
    def network(params: Any) -> nn.Module:
        """The network, untrained, with its own names for its tensors, made on torch's current default device."""
        ...


class HubExtractor(Extractor, Protocol):
    """One whose weights another library can fetch, where the stages file says `weights: hub`."""

    @staticmethod
    def hub(params: Any) -> Source | None:
        """Where they are fetched from with these parameters; None where nothing is published for them. Asks no network."""
        ...


class FaceExtractor(Extractor, Protocol):
    def follow(self, batches: Iterable[Frames], persons: Sequence[Person]) -> Mapping[Person, Faces]:
        """Detect, track and crop. One pass over the frames; memory does not grow with their number but for the small records."""
        ...


class FaceChooser(FaceExtractor, Protocol):
    """One that can choose again without finding again. choices: the parameters on which its `Faces.found` does not depend."""

    choices: ClassVar[tuple[str, ...]]

    def choose(
        self, found: Detections, frame: Int64, times_s: Float64, pictures: Callable[[Int64], Iterable[Frames]], persons: Sequence[Person]
    ) -> Mapping[Person, Faces]:
        """The very faces that `follow` gives for a video in which it found these before. frame: (F,) int64, times_s: (F,) the source
        frames that are shown; pictures: decodes some of them."""
        ...


class RootReader(Extractor, Protocol):
    """One that reads what lies beside the videos, below a stage's `root`: pictures NAME/00001.jpg, or tables NAME.csv.

    Without a decoder it needs the root; with one, a root takes the place of the decoder.
    """

    root_holds: ClassVar[RootHolds]


class CropReader(RootReader, Protocol):
    def read(self, crops: Mapping[int, bytes], frames: Int64) -> Faces:
        """Encoded pictures by source frame number -> faces for the given source frames, masked where there is none."""
        ...


class TableReader(RootReader, Protocol):
    def read_table(self, lines: Iterable[bytes], rows: Rows, n_frames: int) -> tuple[Track, tuple[str, ...]]:
        """The lines of a table, the timeline's rows, how many frames the source has -> one row each, and warnings for the user."""
        ...


class VisualExtractor(Extractor, Protocol):
    """Frame-wise: row i of the output depends on picture i only.

    It may also have:
    resample: Resample, how crops of another size are brought to size_px: "area" (the default: OpenCV's INTER_AREA down, INTER_LINEAR up),
    "pil_bilinear" or "pil_bicubic" (Pillow's filters, which widen with the reduction, as torchvision's Resize has them).
    columns: tuple[str, ...], the names of its dim values, where they have names.
    warnings: Sequence[str], what is written into the provenance of all that it makes (any extractor of features may have this).
    """

    dim: int
    size_px: int
    batch: int

    def embed(self, crops: UInt8) -> Float32:
        """(N, size_px, size_px, 3) uint8 RGB -> (N, dim) float32."""
        ...


class ClipExtractor(Extractor, Protocol):
    """One that sees several rows of the timeline at once. batch: how many clips at a time."""

    dim: int
    size_px: int
    batch: int

    def clips(self, valid: Bool) -> Clips:
        """(T,) which rows of the timeline have a face -> what each output row sees. Pure."""
        ...

    def embed_clips(self, clips: UInt8) -> Float32:
        """(N, clip_frames, size_px, size_px, 3) uint8 RGB -> (N, dim) float32. Row i depends on clip i only."""
        ...


class AudioExtractor(Extractor, Protocol):
    """It may also have hears_hz: int, the only rate of the sound at which it is defined; a stages file with another is refused."""

    dim: int

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """Sound on the video's clock -> a track at the extractor's own rate, or one row per timeline row where it reads the timeline."""
        ...
