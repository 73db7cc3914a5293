"""VGGish against torchvggish, in both output conventions and both framings. The network has 72 million weights: slow."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from extractors.audio.mel import log_mel
from extractors.audio.vggish import Vggish, example_starts
from extractors.contract import ExtractorError, Kind, Runtime, Waveform


@pytest.fixture(scope="module")
def weights(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's pseudo-random weights as a checkpoint file."""
    import torch

    facts = json.loads((parity / "vggish.json").read_text())
    spec = importlib.util.spec_from_file_location("parity_weights", parity / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    state = rule.state_dict(facts["manifest"], facts["weights_rule"]["gain"])
    path = tmp_path_factory.mktemp("weights") / "vggish.pth"
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def per_row(weights: Path) -> Vggish:
    return Vggish(Vggish.Params(), Runtime(weights=weights))


def sound(samples: np.ndarray) -> Waveform:
    return Waveform(samples=samples.astype(np.float32), rate_hz=16000, valid=np.ones(math.ceil(len(samples) / 160), np.bool_))


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * 16000))


@pytest.mark.parametrize("rate", ["25.0", "30.0", "23.976023976023978", "29.97002997002997", "40.0", "60.0"])
def test_examples_start_where_the_published_system_starts_them(rate: str, parity: Path) -> None:
    known = json.loads((parity / "vggish_framing.json").read_text())["output"]["starts"]
    assert len(known) == 6
    starts = known[rate]
    assert example_starts(np.arange(len(starts)) / float(rate)).tolist() == starts


def test_examples_start_by_presentation_time_not_by_number() -> None:
    assert example_starts(np.array([0.0, 0.04, 1.0, 1.004, 1.005, 3600.015, 3600.025])).tolist() == [0, 4, 100, 100, 100, 360002, 360002]


@pytest.mark.slow
@pytest.mark.parametrize(("output", "array"), [("pre_activation", "out_pre_activation"), ("relu", "out_embedding_relu")])
def test_equals_the_reference(output: str, array: str, weights: Path, parity: Path) -> None:
    limit = json.loads((parity / "vggish.json").read_text())["tolerance"]["limit"]
    vggish = Vggish(Vggish.Params(hop="native", output=output), Runtime(weights=weights))
    with np.load(parity / "vggish.npz") as known:
        tracks = [vggish.extract(sound(wave / 32768), None) for wave in known["wave"]]
        expected = known[array]
    # 1.965 s hold two examples of 0.96 s; the fixture has the first.
    assert [track.values.shape for track in tracks] == [(2, 128), (2, 128)]
    np.testing.assert_allclose(tracks[0].times_s, [0.4875, 1.4475])
    values = np.stack([track.values[0] for track in tracks])
    assert np.abs(values - expected).max() / expected.std() < limit


@pytest.mark.slow
def test_a_mistake_would_be_noticed(weights: Path, parity: Path) -> None:
    """The other convention of the last ReLU, places flattened channel by channel, and frequency before time."""
    import torch

    limit = json.loads((parity / "vggish.json").read_text())["tolerance"]["limit"]
    vggish = Vggish(Vggish.Params(hop="native"), Runtime(weights=weights))
    with np.load(parity / "vggish.npz") as known:
        waves, expected, relu = known["wave"], known["out_pre_activation"], known["out_embedding_relu"]
    assert np.abs(relu - expected).max() / expected.std() > 100 * limit
    first = vggish._network.embeddings[0]
    by_place = first.weight.data.reshape(4096, 6, 4, 512)
    for order in ((0, 3, 1, 2), (0, 2, 1, 3)):
        first.weight = torch.nn.Parameter(by_place.permute(*order).reshape(4096, -1), requires_grad=False)
        values = np.stack([vggish.extract(sound(wave / 32768), None).values[0] for wave in waves])
        assert np.abs(values - expected).max() / expected.std() > 100 * limit


@pytest.mark.slow
def test_the_file_of_another_network_is_refused(weights: Path, tmp_path: Path) -> None:
    """A published one is a bare state dict; what training scripts wrap around it is taken off."""
    import torch

    state = torch.load(weights, weights_only=True, mmap=True)
    del state["features.3.bias"]
    state["pproc.pca_means"] = torch.zeros(128, 1)
    state["embeddings.4.weight"] = torch.zeros(64, 4096)
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "other.pth")
    said = r"other\.pth cannot be loaded: .*1 missing \(features\.3\.bias\), 1 unexpected \(pproc\.pca_means\), .*\(64, 4096\)"
    with pytest.raises(ExtractorError, match=said):
        Vggish(Vggish.Params(), Runtime(weights=tmp_path / "other.pth"))
    (tmp_path / "other.pth").unlink()  # a quarter of a gigabyte, which pytest would keep for three runs


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", [25.0, 60.0])
def test_rows_of_the_timeline_equal_the_published_framing(rate_hz: float, per_row: Vggish, weights: Path, parity: Path) -> None:
    """Each row's example cut by hand from the reference's log-mel, through the package's own network."""
    import torch
    from torchvggish.torchvggish import VGG, make_layers

    reference = VGG(make_layers(), postprocess=False)
    reference.load_state_dict(torch.load(weights, weights_only=True), assign=True)
    reference.embeddings = reference.embeddings[:-1]
    starts = json.loads((parity / "vggish_framing.json").read_text())["output"]["starts"][str(rate_hz)]
    times_s = np.arange(len(starts) + 3) / rate_hz
    rows = np.flatnonzero(times_s < 2.0)[::9]
    with np.load(parity / "vggish_framing.npz") as known:
        track = per_row.extract(sound(known["wave"] / 32768), times_s)
        examples = np.stack([known["logmel"][starts[i] : starts[i] + 96] for i in rows])
    with torch.inference_mode():
        expected = reference(torch.from_numpy(examples)[:, None]).numpy()
    assert np.abs(track.values[rows] - expected).max() / expected.std() < 1e-4
    np.testing.assert_array_equal(track.times_s, times_s)
    np.testing.assert_array_equal(track.valid, times_s < 2.0)  # nothing is heard at or after the end


@pytest.mark.slow
def test_a_row_hears_what_follows_it_for_0_975_s(per_row: Vggish) -> None:
    """Silence but for a burst: exactly the rows whose [t, t + 0.975) meets it differ from silence."""
    samples = np.zeros(4 * 16000)
    samples[32000:32160] = noise(0.01)  # [2.00, 2.01)
    times_s = np.arange(0, 3, 0.05)
    track = per_row.extract(sound(samples), times_s)
    heard = np.abs(track.values - track.values[0]).max(axis=1) > 0
    np.testing.assert_array_equal(heard, (times_s + 0.975 > 2.0 + 1e-9) & (times_s < 2.01 - 1e-9))


@pytest.mark.slow
def test_validity_of_late_sound_gaps_and_the_end(per_row: Vggish) -> None:
    """Sound in [0.5, 2.0) and [2.1, 4.0) of 4.5 s."""
    waveform = sound(noise(4.5))
    for first, last in ((0, 50), (200, 210), (400, 450)):
        waveform.valid[first:last] = False
        waveform.samples[first * 160 : last * 160] = 0
    times_s = np.array([0.0, 0.49, 0.5, 1.02, 1.03, 1.9, 2.09, 2.1, 3.0, 3.99, 4.0, 4.4, 9.0])
    track = per_row.extract(waveform, times_s)
    expected = [False, False, True, True, False, False, False, True, True, True, False, False, False]
    assert track.valid.tolist() == expected
    assert np.isnan(track.values[~track.valid]).all()
    # The trailing silence of the container is not sound: the last sample before it is what is repeated.
    cut = per_row.extract(Waveform(samples=waveform.samples[:64000], rate_hz=16000, valid=waveform.valid[:400]), times_s)
    np.testing.assert_array_equal(cut.values, track.values)


@pytest.mark.slow
def test_no_sound_and_no_rows(per_row: Vggish, weights: Path) -> None:
    silent = Waveform(samples=np.zeros(32000, np.float32), rate_hz=16000, valid=np.zeros(200, np.bool_))
    for waveform in (sound(np.zeros(0)), silent):
        track = per_row.extract(waveform, np.array([0.0, 0.5]))
        assert not track.valid.any()
    assert per_row.extract(sound(noise(1)), np.empty(0)).values.shape == (0, 128)
    native = Vggish(Vggish.Params(hop="native"), Runtime(weights=weights))
    assert native.extract(sound(noise(0.974)), None).values.shape == (0, 128)
    assert native.extract(sound(noise(0.975)), None).values.shape == (1, 128)


@pytest.mark.slow
def test_half_precision_points_the_same_way(per_row: Vggish, weights: Path) -> None:
    half = Vggish(Vggish.Params(), Runtime(weights=weights, precision="bfloat16"))
    times_s = np.array([0.0, 0.5])
    a, b = (vggish.extract(sound(noise(2)), times_s).values for vggish in (per_row, half))
    assert b.dtype == np.float32
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert (cosine > 0.999).all()


@pytest.mark.slow
def test_bad_inputs(per_row: Vggish) -> None:
    with pytest.raises(ExtractorError, match="vggish cannot read this sound: it is defined at 16000 Hz and got 8000 Hz"):
        per_row.extract(Waveform(samples=np.zeros(80, np.float32), rate_hz=8000, valid=np.ones(1, np.bool_)), np.zeros(1))
    with pytest.raises(ValueError, match="expected the timeline's row times"):
        per_row.extract(sound(noise(1)), None)
    with pytest.raises(ValueError, match="vggish: expected a weight file, got none"):
        Vggish(Vggish.Params(), Runtime())


def test_what_it_reads_follows_the_hop() -> None:
    assert Vggish.reads(Vggish.Params()) == (Kind.WAVEFORM, Kind.TIMELINE)
    assert Vggish.reads(Vggish.Params(hop="native")) == (Kind.WAVEFORM,)


def test_every_row_before_the_end_has_an_example() -> None:
    """The second that is appended is enough for every length, down to a single sample."""
    for n in (1, 159, 160, 161, 15999, 16080, 16081):
        last = example_starts(np.array([(n - 1) / 16000, np.nextafter(n / 16000, 0)]))
        assert last.max() + 96 <= len(log_mel(np.zeros(n + 16000, np.float32)))
