"""What every extractor gives for fixed inputs: computed, compared with what is recorded, and recorded anew.

Run `python tests/golden/make_outputs.py` after raising an extractor's version. It records what is new or has a raised version,
keeps every other array as it is, and refuses an output that changed under the same version: stored features would then be
taken for current though they are not. `--inputs-changed` records everything, for a change of the inputs below.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extractors.contract import Faces, Float32, Frames, Kind, Rows, Runtime, Track, UInt8, Waveform
from extractors.registry import EXTRACTORS, load

Array = npt.NDArray[Any]
Outputs = dict[str, Array]  # "variant/array" -> values

HERE = Path(__file__).parent
# Every extractor runs with its defaults, and with these parameters too.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "timeline": {"30 Hz": {"rate_hz": 30.0}},
    "waveform": {"peak": {"peak_dbfs": -3.0}},
    "vggish": {"native": {"hop": "native", "output": "relu"}},
    "mfcc39": {"timeline": {"hop": "timeline"}},
    "wav2vec2": {"last4": {"output": "last4_sum", "chunk_s": 1.0, "overlap_s": 0.5}},
    "wav2vec2_emotion": {"scores": {"output": "scores", "window_s": 0.5}},
    "egemaps_lld": {"v01a": {"feature_set": "eGeMAPSv01a"}},
    "egemaps_functionals": {"window": {"hop": "window", "window_s": 0.5}},
    "compare_lld": {"deltas": {"deltas": True}},
    "openface": {"paired": {"columns": "paired"}},
}
# The largest difference, in units of the array's root mean square. In float32 another processor or torch build sums in another
# order, which moves these outputs by 1e-7 to 2e-5; the finest mistake known, a normalisation's epsilon of 2e-5 for 1e-5, by 5e-4.
LIMIT = 1e-4
# openSMILE's columns differ in size by orders, so each value counts for itself, and its builds differ by more.
# The detector refines a box in steps that amplify rounding: 5e-4 is 0.05 pixels. Crops have been through JPEG and OpenCV's
# fixed-point arithmetic, which differs by a grey level between builds: 0.01 of them.
LIMITS = {"egemaps_lld": 1e-3, "egemaps_functionals": 1e-3, "compare_lld": 1e-3, "mtcnn": 5e-4, "crop": 1e-2}
EACH = ("egemaps_lld", "egemaps_functionals", "compare_lld")
# Of stand-in weights: where it is not 1, the gain at which a network's activations neither die out nor grow without end.
GAINS = {
    "dan": 0.6,
    "vggish": math.sqrt(2),
    "efficientnet_b0": 1.4,
    "efficientnet_b2": 1.34,
}
# Of stand-ins for a saved model's folder: its config.json. Small, in the two layouts that published models have.
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "conv_dim": [16] * 7}
SMALL |= {"model_type": "wav2vec2", "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
FOLDERS: dict[str, dict[str, Any]] = {
    "wav2vec2": SMALL,
    "wav2vec2_emotion": SMALL | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}
RATES_HZ = {"spectrogram_resnet18": 44100}  # of the sound, where it is not 16 kHz
DRAWN = 1_000_003  # numbers per tensor of stand-in weights, then repeated: a prime, so that no two rows of a matrix are alike


def uniform(word: str, n: int) -> Float32:
    """(n,) in [-1, 1), pseudo-random by the word. From PCG64's raw stream, which NumPy promises not to change; 16 bits each."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    bits = np.random.PCG64(seed).random_raw(-(-n // 4)).astype("<u8").view("<i2")[:n]
    return np.asarray(bits, np.float32) / np.float32(32768)


def sound(rate_hz: int = 16000) -> Waveform:
    """1.6 s: noise, and a pulse train (130 Hz at 16 kHz) that is heard from 0.4 s on; no sound in [1.2, 1.23) s."""
    block = rate_hz // 100
    samples = 0.02 * uniform("sound", 160 * block)
    samples[40 * block :: 123] += 0.6
    valid = np.ones(160, np.bool_)
    valid[120:123] = False
    samples[120 * block : 123 * block] = 0
    return Waveform(samples=samples, rate_hz=rate_hz, valid=valid)


def photograph() -> UInt8:
    """(240, 240, 3) uint8 RGB with one face: scikit-image's astronaut (Eileen Collins, NASA, public domain)."""
    from skimage.data import astronaut

    read_photo: Callable[[], UInt8] = astronaut  # scikit-image has no types
    return np.ascontiguousarray(read_photo()[:240, 110:350])


def crops(size_px: int) -> UInt8:
    """(3, size_px, size_px, 3) uint8 RGB: the face, the face mirrored, and coarse noise."""
    import cv2

    face = cv2.resize(photograph()[55:185, 50:180], (size_px, size_px), interpolation=cv2.INTER_AREA)
    noise = (uniform("crops", 8 * 8 * 3).reshape(8, 8, 3) * 127 + 128).astype(np.uint8)
    coarse = np.kron(noise, np.ones((-(-size_px // 8), -(-size_px // 8), 1), np.uint8))[:size_px, :size_px]
    return np.stack([face, face[:, ::-1], coarse]).astype(np.uint8)


def units() -> list[bytes]:
    """The lines of a table of action units: 4 frames, in the second of which nobody was tracked, and two people in the third."""
    from extractors.visual.openface import NEEDED

    lines = [",".join(NEEDED)]
    for frame, success in ((1, 1), (2, 0), (3, 1), (3, 1), (4, 1)):
        shares = np.abs(uniform(f"units {len(lines)}", len(NEEDED)))
        values = {name: round(5 * share, 2) if name.endswith("_r") else round(share) for name, share in zip(NEEDED, shares, strict=True)}
        values |= {"frame": frame, "success": success, "confidence": round(shares[2], 2)}
        lines.append(",".join(f"{values[name]:g}" for name in NEEDED))
    return [f"{line}\n".encode() for line in lines]


def clips(extractor: Any) -> UInt8:
    """(3, clip_frames, size_px, size_px, 3) uint8 RGB: the pictures of `crops` in turn, from each of them on."""
    n_frames = extractor.clips(np.ones(1, np.bool_)).rows.shape[1]
    return crops(extractor.size_px)[(np.arange(3)[:, None] + np.arange(n_frames)) % 3]


def weight_file(name: str, folder: Path) -> Path | None:
    """A checkpoint of pseudo-random weights for an extractor that needs one: by the tensors' names, alike on every machine."""
    if not load(name).needs_weights:
        return None
    import torch
    from safetensors.numpy import save_file

    path = _model_folder(name, folder) if name in FOLDERS else folder / f"{name}.safetensors"
    with torch.device("meta"):
        network, gain = _network(name, path), GAINS.get(name, 1.0)
    state = {key: _tensor(key, tuple(like.shape), like.is_floating_point(), gain) for key, like in network.state_dict().items()}
    save_file(state, path / "model.safetensors" if path.is_dir() else path)
    return path


def _model_folder(name: str, folder: Path) -> Path:
    """A folder as Hugging Face's libraries save a model, but for its tensors."""
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps(FOLDERS[name]))
    (folder / name / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16000}))
    return folder / name


def _network(name: str, path: Path) -> Any:
    """Of a folder, what its config.json says."""
    if name not in FOLDERS:
        return load(name).network(load(name).Params())
    from extractors import saved_model
    from extractors.audio import wav2vec2_emotion

    builders: dict[str, Callable[[Any], Any]] = {"wav2vec2": saved_model.build, "wav2vec2_emotion": wav2vec2_emotion.build}
    return builders[name](saved_model.read_config(path))


def _tensor(key: str, shape: tuple[int, ...], floating: bool, gain: float) -> Array:
    if not floating:
        return np.zeros(shape, np.int64)
    values = uniform(key, min(math.prod(shape), DRAWN))
    if len(shape) > 1:
        return np.resize(values * np.float32(gain * math.sqrt(3 / math.prod(shape[1:]))), shape)
    if key.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(values)
    centre = 0.25 if key.endswith("prelu.weight") else 1.0 if key.endswith("weight") else 0.0
    return np.float32(centre) + np.float32(0.1) * values


def compute(name: str, weights: Path | None) -> Outputs:
    """All that the extractor gives, with its defaults and with its variants, for the inputs above."""
    outputs: Outputs = {}
    for variant, params in {"defaults": {}, **VARIANTS.get(name, {})}.items():
        extractor_class = load(name)
        extractor = extractor_class(extractor_class.Params(**params), Runtime(weights=weights))
        outputs |= {f"{variant}/{array}": values for array, values in _arrays(extractor).items()}
    return outputs


def _arrays(extractor: Any) -> Outputs:
    if extractor.yields is Kind.TIMELINE:
        rows: Rows = extractor.rows(np.cumsum([0, 40, 40, 15, 25, 120, 40, 33, 34]) / 1000)
        return {"times_s": rows.times_s, "frame": rows.frame}
    if extractor.yields is Kind.WAVEFORM:
        return {"samples": extractor.condition(sound()).samples[6200:6800]}
    if extractor.yields is Kind.FACES:
        return _face_arrays(_faces(extractor))
    if hasattr(extractor, "embed"):
        return {"values": extractor.embed(crops(extractor.size_px))}
    if hasattr(extractor, "read_table"):
        table: Track = extractor.read_table(units(), Rows(times_s=np.arange(6) / 25, frame=np.array([0, 1, 1, 2, 3, 9])), 4)[0]
        return {"values": table.values, "times_s": table.times_s, "valid": table.valid}
    if hasattr(extractor, "embed_clips"):
        return {"values": extractor.embed_clips(clips(extractor))}
    track: Track = extractor.extract(sound(RATES_HZ.get(extractor.name, 16000)), np.array([0.0, 0.35, 0.7, 1.21, 1.3]))
    step = max(1, len(track.values) // 12)  # some rows of all parts of the sound say as much as all rows
    return {"values": track.values[::step], "times_s": track.times_s[::step], "valid": track.valid}


def _faces(extractor: Any) -> Faces:
    if hasattr(extractor, "follow"):
        images = np.stack([photograph(), np.zeros_like(photograph()), np.roll(photograph(), 9, axis=1)])
        followed: Faces = extractor.follow([Frames(images=images, times_s=np.arange(3) / 4, index=np.arange(3))], ["main"])["main"]
        return followed
    from extractors.face import jpeg

    read: Faces = extractor.read({0: jpeg.encode(crops(112)[0], 90), 2: jpeg.encode(photograph(), 90)}, np.arange(3))
    return read


def _face_arrays(faces: Faces) -> Outputs:
    """The crops as means of 8 x 8 pixels: enough to see that a face was cut out elsewhere."""
    from extractors.face import jpeg

    decoded = [picture for data in faces.crops if (picture := jpeg.decode(data)) is not None]
    blocks = np.stack(decoded).astype(np.float32).reshape(len(decoded), faces.size_px // 8, 8, faces.size_px // 8, 8, 3)
    arrays: Outputs = {name: getattr(faces, name) for name in ("frame", "valid", "boxes", "landmarks", "prob", "track")}
    return arrays | {"crop": blocks.mean(axis=(2, 4))}


def read_recorded() -> tuple[dict[str, int], dict[str, Outputs]]:
    """Extractor -> the version that was recorded; extractor -> its outputs."""
    if not (HERE / "outputs.json").exists():
        return {}, {}
    versions: dict[str, int] = json.loads((HERE / "outputs.json").read_text())
    outputs: dict[str, Outputs] = {name: {} for name in versions}
    with np.load(HERE / "outputs.npz") as file:
        for key in file.files:
            name, _, array = key.partition("/")
            outputs[name][array] = file[key]
    return versions, outputs


def difference(name: str, recorded: Mapping[str, Array], got: Mapping[str, Array]) -> str | None:
    """What differs by more than the limit, or None."""
    if recorded.keys() != got.keys():
        return f"the arrays are {sorted(got)}, recorded are {sorted(recorded)}"
    for array, expected in recorded.items():
        values, limit = got[array], LIMITS.get(array.rpartition("/")[2], LIMITS.get(name, LIMIT))
        if values.shape != expected.shape or values.dtype != expected.dtype:
            return f"{array} is {values.shape} {values.dtype}, recorded is {expected.shape} {expected.dtype}"
        a, b = values.astype(np.float64), expected.astype(np.float64)
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            return f"{array} is missing in other rows than recorded"
        known = np.isfinite(b)
        scale = 1 + np.abs(b[known]) if name in EACH else float(np.sqrt(np.mean(b[known] ** 2))) if b[known].any() else 1.0
        largest = float(np.max(np.abs(a[known] - b[known]) / scale, initial=0.0))
        if largest > limit:
            return f"{array} differs by {largest:.2g}, the limit is {limit:.0e}"
    return None


def problem(name: str, versions: Mapping[str, int], recorded: Mapping[str, Outputs], got: Outputs) -> str | None:
    """Why the record does not stand for the extractor, and what to do; None where it does."""
    extractor = load(name)
    if name not in versions:
        return f"{name}: no output is recorded: run tests/golden/make_outputs.py"
    if versions[name] != extractor.version:
        return f"{name}: recorded is version {versions[name]}, it now is {extractor.version}: run tests/golden/make_outputs.py"
    if what := difference(name, recorded[name], got):
        return f"{name}: output changed: raise {extractor.__name__}.version and run tests/golden/make_outputs.py ({what})"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs-changed", action="store_true", help="record everything anew")
    again: bool = parser.parse_args().inputs_changed
    versions, recorded = ({}, {}) if again else read_recorded()
    kept: dict[str, Outputs] = {}
    refused = []
    for name in EXTRACTORS:
        with tempfile.TemporaryDirectory() as folder:
            got = compute(name, weight_file(name, Path(folder)))
        why = problem(name, versions, recorded, got)
        if why and versions.get(name) == load(name).version:
            refused.append(why)
        kept[name] = got if why else recorded[name]
        print(f"{name}: {'recorded' if why else 'unchanged'}", file=sys.stderr)
    if refused:
        print("nothing was written:", *refused, sep="\n", file=sys.stderr)
        return 1
    arrays = {f"{name}/{array}": values for name, outputs in kept.items() for array, values in outputs.items()}
    np.savez_compressed(HERE / "outputs.npz", **arrays)  # type: ignore[arg-type]  # NumPy's stub takes names for its other arguments
    (HERE / "outputs.json").write_text(json.dumps({name: load(name).version for name in kept}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
