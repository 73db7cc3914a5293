"""Samples against a plain reading of the same arrays: windows, clips, masks, fills, standardising; and what may never matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.store import Labels
from trainer.data import ClipDataset, WindowDataset
from trainer.errors import TrainerError
from trainer.order import Order
from trainer.rows import ArrayRows
from trainer.selection import Selection, select
from trainer.standardiser import fit_standardiser

FEATURES = ["arcface", "vggish"]


def same(a: Any, b: Any) -> bool:
    """Two samples or batches, to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(torch.equal(torch.as_tensor(a), torch.as_tensor(b)))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_windows_hold_what_the_store_has(make_store: Callable[..., Any], dtype: str) -> None:
    made = make_store(dtype=dtype)
    chosen = select(made.open(), FEATURES, task="va", trials=["106", "207", "video5_left"])
    data = WindowDataset(chosen, rows=300, stride=200)
    assert len(data) == 3 + 1 + 1
    places = [(chosen.all_trials[sample["trial"]], sample["start"]) for sample in data]  # type: ignore[attr-defined]
    assert places == [("106", 0), ("106", 200), ("106", 400), ("207", 0), ("video5_left", 0)]
    for sample, (trial, start) in zip((data[i] for i in range(len(data))), places, strict=True):
        n = min(300, made.counts[trial])
        rows = slice(made.rows(trial).start + start, made.rows(trial).start + start + n)
        assert sample["rows_valid"].tolist() == [True] * n + [False] * (300 - n)
        for name in FEATURES:
            expected = np.where(made.valid[name][rows, None], made.values[name][rows].astype(np.float32), 0)
            values, valid = sample["features"][name], sample["feature_valid"][name]
            assert (values.dtype, values.shape) == (torch.float32, (300, made.values[name].shape[1]))
            np.testing.assert_array_equal(values[:n], expected)
            np.testing.assert_array_equal(valid[:n], made.valid[name][rows])
            assert not values[n:].any()
            assert not valid[n:].any()
        labels = made.labels["va"]
        np.testing.assert_array_equal(sample["label_valid"][:n], labels.valid[rows])
        np.testing.assert_array_equal(sample["labels"][:n], np.nan_to_num(labels.values[rows]))
        assert not sample["label_valid"][n:].any()
        assert not sample["labels"][n:].any()


def test_without_a_task_there_are_no_labels(made: Any) -> None:
    sample = WindowDataset(select(made.open(), ["arcface"]))[0]
    assert sample.keys() == {"features", "feature_valid", "rows_valid", "trial", "start"}


def test_labels_per_trial_go_with_each_window(made: Any) -> None:
    data = WindowDataset(select(made.open(), ["arcface"], task="emi"))
    for i in range(len(data)):
        sample = data[i]
        np.testing.assert_array_equal(sample["labels"], np.nan_to_num(made.labels["emi"].values[sample["trial"]]))
        np.testing.assert_array_equal(sample["label_valid"], made.labels["emi"].valid[sample["trial"]])


def test_every_step_th_row(made: Any) -> None:
    data = WindowDataset(select(made.open(), ["arcface"], task="va", trials=["106"]), rows=16, stride=16, step=32)
    sample = next(data[i] for i in range(len(data)) if data.windows.start[i] == 5)
    rows = 5 + 32 * np.arange(16)
    np.testing.assert_array_equal(sample["labels"], np.nan_to_num(made.labels["va"].values[rows]))
    expected = np.where(made.valid["arcface"][rows, None], made.values["arcface"][rows], 0)
    np.testing.assert_array_equal(sample["features"]["arcface"], expected)


def test_standardised_features_have_mean_0_and_deviation_1(made: Any) -> None:
    chosen = select(made.open(), FEATURES, trials=["106", "video5"])
    fitted = fit_standardiser(chosen)
    data = WindowDataset(chosen, rows=100, stride=100, standardiser=fitted)
    for name in FEATURES:
        values = torch.cat([data[i]["features"][name][data[i]["feature_valid"][name]] for i in range(len(data))]).double()
        # Seven and three windows of 100 rows, without padding: float32 rounds each value by 6e-8 of its size, which is at most 4 or so.
        torch.testing.assert_close(values.mean(dim=0), torch.zeros(values.shape[1], dtype=torch.float64), rtol=0, atol=1e-6)
        torch.testing.assert_close(values.std(dim=0, correction=0), torch.ones(values.shape[1], dtype=torch.float64), rtol=0, atol=1e-6)
        invalid = torch.cat([data[i]["features"][name][~data[i]["feature_valid"][name]] for i in range(len(data))])
        assert len(invalid) > 10
        assert not invalid.any(), "zero after standardising, which is the mean"


@pytest.mark.parametrize("fill", ["zero", "nearest", "previous"])
@pytest.mark.parametrize("standardised", [False, True])
def test_what_invalid_rows_hold_never_matters(made: Any, fill: Any, standardised: bool) -> None:
    store = made.open()
    samples = []
    for nonsense in (np.nan, 6e4, -1.0):
        more = {}
        for name in FEATURES:
            values = made.values[name].copy()
            values[~made.valid[name]] = nonsense
            more[name] = ArrayRows(values=values, valid=made.valid[name])
        labels = made.labels["va"]
        scrambled = Labels(columns=labels.columns, values=labels.values.copy(), valid=labels.valid, per_trial=False)
        scrambled.values[~labels.valid] = nonsense
        chosen = replace(select(store, [], more=more), labels=scrambled, task="va")
        fitted = fit_standardiser(chosen) if standardised else None
        windows = WindowDataset(chosen, rows=120, stride=50, standardiser=fitted, fill=fill)
        samples.append([windows[i] for i in range(len(windows))])
    for again in samples[1:]:
        assert all(same(a, b) for a, b in zip(samples[0], again, strict=True))
    assert all(torch.isfinite(sample["features"]["arcface"]).all() for sample in samples[0])


@pytest.mark.parametrize("policy", ["nearest", "previous"])
def test_filled_rows_take_their_trial_s_valid_rows(made: Any, policy: Any) -> None:
    """Against a loop over rows, with a stretch so long that the row to take is outside the window."""
    store = made.open()
    valid = made.valid["arcface"].copy()
    valid[made.rows("106")][150:420] = False
    valid[made.rows("video5_left")] = False
    source = ArrayRows(values=made.values["arcface"], valid=valid)
    data = WindowDataset(select(store, ["vggish"], more={"arcface": source}), rows=100, stride=100, fill={"arcface": policy})
    for i in range(len(data)):
        sample = data[i]
        span = made.rows(list(made.counts)[sample["trial"]])
        known = [row for row in range(span.start, span.stop) if valid[row]]
        for k in range(int(sample["rows_valid"].sum())):
            row = span.start + sample["start"] + k
            if policy == "nearest":
                taken = min(known, key=lambda other, row=row: (abs(other - row), other), default=None)
            else:
                taken = max((other for other in known if other <= row), default=None)
            expected = made.values["arcface"][taken] if taken is not None else np.zeros(7)
            np.testing.assert_array_equal(sample["features"]["arcface"][k], expected)
        vggish = sample["features"]["vggish"][~sample["feature_valid"]["vggish"]]
        assert not vggish.any(), "only the named feature is filled"


def test_windows_without_labels_are_left_out_where_asked(made: Any) -> None:
    store = made.open()
    labels = store.index.labels["va"]
    labels.valid[made.rows("106").start + 200 : made.rows("106").start + 500] = False
    labels.valid[made.rows("video5")] = False
    chosen = select(store, ["arcface"], task="va")
    everything, labelled = WindowDataset(chosen), WindowDataset(chosen, labelled_only=True)
    names = [(chosen.all_trials[int(trial)], int(start)) for trial, start in zip(labelled.trial, labelled.windows.start, strict=True)]
    assert names == [("106", 0), ("106", 400), ("207", 0), ("video5_left", 0), ("9", 0)]
    assert len(everything) == len(names) + 2
    assert len(WindowDataset(select(store, ["arcface"]), labelled_only=True)) == len(everything), (
        "without a task nothing is labelled or not"
    )
    clips = WindowDataset(select(store, ["arcface"], task="emi"), labelled_only=True)
    assert "9" not in {chosen.all_trials[int(trial)] for trial in clips.trial}


def test_a_step_s_labels_are_those_of_its_rows(made: Any) -> None:
    store = made.open()
    labels = store.index.labels["va"]
    labels.valid[made.rows("106")] = False
    labels.valid[made.rows("106").start + 3 :: 10] = True
    data = WindowDataset(select(store, ["arcface"], task="va", trials=["106"]), rows=7, stride=7, step=10, labelled_only=True)
    assert len(data) == 10
    assert {int(start) % 10 for start in data.windows.start} == {3}


def clips(made: Any, counts: dict[str, int], **options: Any) -> tuple[Selection, ClipDataset]:
    chosen = select(made.open(), FEATURES, task="emi", trials=counts)
    return chosen, ClipDataset(chosen, **options)


@pytest.mark.parametrize(
    ("longer", "expected"),
    [("first", range(300)), ("centre", range(200, 500)), ("spaced", [1, 3, 5, 8, 10])],
)
def test_clips_are_brought_to_so_many_rows(made: Any, longer: Any, expected: Any) -> None:
    chosen, data = clips(made, {"106": 700, "207": 31, "video5": 300}, rows=300, longer=longer)
    assert (len(data), data.trial.tolist()) == (3, chosen.trials.tolist())
    for i, (trial, n) in enumerate({"106": 700, "207": 31, "video5": 300}.items()):
        sample = data[i]
        assert sample.keys() == {"features", "feature_valid", "rows_valid", "labels", "label_valid", "trial"}
        assert int(sample["rows_valid"].sum()) == min(n, 300)
        np.testing.assert_array_equal(sample["labels"], made.labels["emi"].values[sample["trial"]])
        if trial != "106":
            rows = np.arange(n) + made.rows(trial).start
            np.testing.assert_array_equal(sample["feature_valid"]["arcface"][:n], made.valid["arcface"][rows])
    long = data[0]["features"]["vggish"]
    for k, row in enumerate(expected):
        values = made.values["vggish"][row] if made.valid["vggish"][row] else np.zeros(4)
        np.testing.assert_array_equal(long[k], values)


def test_spaced_rows_are_evenly_spread(made: Any) -> None:
    everywhere = ArrayRows(values=np.arange(1332, dtype=np.float32)[:, None], valid=np.ones(1332, np.bool_))
    data = ClipDataset(select(made.open(), [], more={"row": everywhere}, trials=["106"]), rows=300)
    taken = data[0]["features"]["row"][:, 0].numpy()
    assert set(np.diff(taken)) == {2, 3}
    assert taken[0] == 700 - 1 - taken[-1] == 1, "as far from the start as from the end"


def test_rows_without_a_face_are_discarded_before_anything_is_counted(made: Any) -> None:
    chosen = select(made.open(), FEATURES, task="emi", trials=["207", "106"])
    data = ClipDataset(chosen, rows=40, longer="first", discard=["arcface"])
    for i, trial in enumerate(("106", "207")):
        sample = data[i]
        rows = np.arange(1332)[made.rows(trial)]
        kept = rows[made.valid["arcface"][rows]][:40]
        n = len(kept)
        assert sample["rows_valid"].tolist() == [True] * n + [False] * (40 - n)
        np.testing.assert_array_equal(sample["features"]["arcface"][:n], made.values["arcface"][kept])
        np.testing.assert_array_equal(sample["feature_valid"]["vggish"][:n], made.valid["vggish"][kept])
        assert sample["feature_valid"]["arcface"][:n].all()


def test_a_clip_without_any_face_is_all_padding(made: Any) -> None:
    none = ArrayRows(values=np.full((1332, 2), np.nan, np.float32), valid=np.zeros(1332, np.bool_))
    sample = ClipDataset(select(made.open(), [], more={"face": none}, task="emi"), rows=5, discard=["face"])[0]
    assert not sample["rows_valid"].any()
    assert not sample["features"]["face"].any()
    assert sample["label_valid"].all()


def test_batches_of_torch_s_own_collation(made: Any) -> None:
    data = WindowDataset(select(made.open(), FEATURES, task="va"), rows=64, stride=32)
    loader = DataLoader(data, batch_size=4, sampler=Order(data.trial, "windows", seed=2))
    batch = next(iter(loader))
    assert batch["features"]["arcface"].shape == (4, 64, 7)
    assert batch["rows_valid"].shape == batch["feature_valid"]["vggish"].shape == (4, 64)
    assert batch["labels"].shape == batch["label_valid"].shape == (4, 64, 2)
    assert batch["trial"].shape == batch["start"].shape == (4,)
    assert len(loader) == -(-len(data) // 4)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("standardised", [False, True])
def test_samples_of_half_the_size(make_store: Callable[..., Any], dtype: str, standardised: bool) -> None:
    """Rounded once, after standardising in float32."""
    made = make_store(dtype=dtype)
    chosen = select(made.open(), FEATURES)
    fitted = fit_standardiser(chosen) if standardised else None
    whole = WindowDataset(chosen, standardiser=fitted)
    if dtype == "float32" and not standardised:
        with pytest.raises(
            TrainerError, match="dtype: float16 of arcface, vggish: they are stored as float32 and may be beyond what float16"
        ):
            WindowDataset(chosen, dtype=torch.float16)
        return
    half = WindowDataset(chosen, standardiser=fitted, dtype=torch.float16)
    for i in range(len(whole)):
        for name in FEATURES:
            assert torch.equal(half[i]["features"][name], whole[i]["features"][name].half())
    assert half[0]["features"]["arcface"].dtype == torch.float16


def test_mistakes_of_whoever_reads(made: Any) -> None:
    store = made.open()
    va, emi = select(store, FEATURES, task="va"), select(store, FEATURES, task="emi")
    with pytest.raises(
        TrainerError, match="task 'va': labels per row: a clip has one target; read windows, or choose a task with labels per"
    ):
        ClipDataset(va)
    with pytest.raises(
        TrainerError, match="clips: rows 0, longer 'first': known: first, centre, spaced; give one of them, and 1 row or more"
    ):
        ClipDataset(emi, rows=0, longer="first")
    with pytest.raises(TrainerError, match="clips: rows 300, longer 'last': known"):
        ClipDataset(emi, longer="last")  # type: ignore[arg-type]
    with pytest.raises(TrainerError, match="discard: no feature faces: read are arcface, vggish; name features that are read"):
        ClipDataset(emi, discard=["faces"])
    with pytest.raises(TrainerError, match="fill: no feature faces: read are arcface, vggish; name features that are read"):
        WindowDataset(va, fill={"faces": "nearest"})
    with pytest.raises(TrainerError, match="fill: unknown policy 'linear': known: zero, nearest, previous; give one of them"):
        WindowDataset(va, fill="linear")  # type: ignore[arg-type]
    with pytest.raises(
        TrainerError, match=r"dtype: unknown type torch.float64: samples are torch.float32 or torch.float16; give one of them"
    ):
        WindowDataset(va, dtype=torch.float64)
    only = fit_standardiser(select(store, ["arcface"]))
    with pytest.raises(TrainerError, match="feature 'vggish': no standardisation: it is of arcface; fit it to this store's features"):
        WindowDataset(va, standardiser=only)
    other = replace(only, mean={"arcface": np.zeros(3), "vggish": np.zeros(4)})
    with pytest.raises(TrainerError, match="feature 'arcface': no standardisation: it is of 3 numbers, the feature has 7; fit it"):
        WindowDataset(va, standardiser=other)
