"""VGGish's whitening to 8 bits, against torchvggish's Postprocessor, from files in the forms in which they are published."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.audio import whitening
from extractors.audio.vggish import FILES, Vggish
from extractors.contract import ExtractorError, Float32, Runtime, Waveform
from pipeline.memo import StatMemo
from pipeline.sources import digest_of

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Whitening like the published one: the mean is not 0 and what comes out has a deviation of 1 or so."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(128, 128)))[0]
    scale = np.linspace(0.2, 1.5, 128)[:, None]
    return {"pca_eigen_vectors": (turn * scale).astype(np.float32), "pca_means": rng.normal(0.3, 0.5, (128, 1)).astype(np.float32)}


def as_tensors(arrays: Arrays, path: Path) -> None:
    import torch

    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)


def as_arrays(arrays: Arrays, path: Path) -> None:
    """As torchvggish's reader allows for: NumPy's own, the means flat."""
    import torch

    torch.save({name: array.reshape(array.shape if array.shape[1] > 1 else -1).astype(np.float64) for name, array in arrays.items()}, path)


def as_old_arrays(arrays: Arrays, path: Path) -> None:
    """And with the names of NumPy 1, in torch's format of before 1.6."""
    import torch

    class Older:
        Pickler, dump, __name__ = pickle.Pickler, staticmethod(pickle.dump), "pickle"

    torch.save({name: array.astype(np.float64) for name, array in arrays.items()}, path, Older, 2, False)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"numpy.core.multiarray" in path.read_bytes()


FORMS = {"tensors": as_tensors, "arrays": as_arrays, "old arrays": as_old_arrays}


def by_torchvggish(monkeypatch: pytest.MonkeyPatch, arrays: Arrays, embeddings: Float32) -> Float32:
    import torch
    from torchvggish import torchvggish

    monkeypatch.setattr(torchvggish.hub, "load_state_dict_from_url", lambda url: {k: torch.from_numpy(v) for k, v in arrays.items()})
    return np.asarray(torchvggish.Postprocessor().postprocess(torch.from_numpy(embeddings)).numpy().reshape(-1, 128))


def embeddings(n: int) -> Float32:
    return np.random.default_rng(1).normal(0.3, 1.5, (n, 128)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_equals_torchvggish(form: str, arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes in float32, so a value that lies on the border of two levels may fall to the other: one in ten thousand."""
    FORMS[form](arrays, tmp_path / "pca.pth")
    values = embeddings(500)
    got = whitening.read(tmp_path / "pca.pth").apply(values)
    expected = by_torchvggish(monkeypatch, arrays, values)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= 1
    assert (got != expected).mean() < 1e-4
    assert {0.0, 255.0} <= set(got.ravel().tolist())
    assert len(np.unique(got)) == 256


def test_a_mistake_would_be_noticed(arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = embeddings(100)
    expected = by_torchvggish(monkeypatch, arrays, values)
    vectors, means = arrays["pca_eigen_vectors"], arrays["pca_means"]
    for wrong in ({"pca_eigen_vectors": vectors.T.copy(), "pca_means": means}, {"pca_eigen_vectors": vectors, "pca_means": -means}):
        as_tensors(wrong, tmp_path / "pca.pth")
        got = whitening.read(tmp_path / "pca.pth").apply(values)
        assert (got != expected).mean() > 0.5


def test_bits_do_not_depend_on_the_batch(arrays: Arrays, tmp_path: Path) -> None:
    as_tensors(arrays, tmp_path / "pca.pth")
    whitened, values = whitening.read(tmp_path / "pca.pth"), embeddings(65)
    whole = whitened.apply(values)
    for n in (1, 7, 64):
        parts = [whitened.apply(values[at : at + n]) for at in range(0, 65, n)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert whitened.apply(values[:0]).shape == (0, 128)


def test_a_wrong_file_is_refused(arrays: Arrays, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "pca.pth"
    with pytest.raises(ExtractorError, match=r"pca\.pth cannot be loaded: No such file or directory; put it beside the network's file"):
        whitening.read(path)

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    vectors, means = arrays["pca_eigen_vectors"], arrays["pca_means"]
    wrong: dict[str, Any] = {
        "KeyError: 'pca_means'": {"pca_eigen_vectors": vectors},
        "cannot reshape": {"pca_eigen_vectors": vectors[:64], "pca_means": means},
        "it holds 3 arrays, expected 2": {**arrays, "features.0.weight": means},
        "finite numbers": {"pca_eigen_vectors": vectors, "pca_means": means * np.nan},
        "UnpicklingError: Weights only load failed": {**arrays, "evil": Evil()},
        "UnpicklingError: Weights only load failed; fetch": {"pca_eigen_vectors": vectors.astype(object), "pca_means": means},
        "could not convert string to float": {"pca_eigen_vectors": vectors, "pca_means": "a"},
        "IndexError|TypeError": [vectors, means],
    }
    for said, content in wrong.items():
        torch.save(content, path)
        with pytest.raises(ExtractorError, match=rf"pca\.pth cannot be loaded: .*({said})"):
            whitening.read(path)
    assert not (tmp_path / "made").exists()
    for data in (b"", b"PK\x03\x04", b"x" * 1000):
        path.write_bytes(data)
        with pytest.raises(ExtractorError, match=r"pca\.pth cannot be loaded: .*; fetch it again"):
            whitening.read(path)


def test_one_file_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "vggish.pth").write_bytes(b"")
    for output in ("pca", "relu_pca"):
        with pytest.raises(ExtractorError, match=r"takes two files, vggish-10086976\.pth and vggish_pca_.*vggish\.pth is one; put both"):
            Vggish(Vggish.Params(output=output), Runtime(weights=tmp_path / "vggish.pth"))


def test_the_digest_of_the_folder_covers_both_files_and_no_other(tmp_path: Path) -> None:
    folder, memo = tmp_path / "vggish", StatMemo(tmp_path / "memo.json")
    folder.mkdir()
    digests = []
    for name, data in ((FILES[0], b"a"), (FILES[1], b"b"), (FILES[0], b"c"), (FILES[1], b"d"), ("README.md", b"e")):
        (folder / name).write_bytes(data)
        digests.append(digest_of(folder, memo, Vggish.layout.files))
    assert len(set(digests)) == 4
    assert digests[3] == digests[4]


@pytest.mark.slow
def test_from_a_folder_of_both_files(
    reference: Callable[[str], Any], arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the outputs that the reference recorded, before and after the last ReLU."""
    import torch

    known = reference("vggish")
    torch.save(known.tensors, tmp_path / FILES[0])
    as_arrays(arrays, tmp_path / FILES[1])
    waves = known.arrays["wave"][:, :15600].astype(np.float32) / 32768
    sounds = [Waveform(samples=wave, rate_hz=16000, valid=np.ones(math.ceil(len(wave) / 160), np.bool_)) for wave in waves]
    for output, array in (("pca", "pre_activation"), ("relu_pca", "embedding_relu"), ("relu", "")):
        vggish = Vggish(Vggish.Params(hop="native", output=output), Runtime(weights=tmp_path))
        values = np.concatenate([vggish.extract(sound, None).values for sound in sounds])
        if not array:
            assert known.error(values, "embedding_relu") < known.limit  # a folder serves the other outputs too
            continue
        expected = by_torchvggish(monkeypatch, arrays, known.arrays[f"out_{array}"])
        assert np.abs(values - expected).max() <= 1
        assert (values != expected).mean() < 0.02  # the network is given to 1e-4 of a deviation, a level is 1/64 of one
    (tmp_path / FILES[0]).unlink()  # a quarter of a gigabyte, which pytest would keep for three runs
