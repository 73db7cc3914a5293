"""An extractor whose output changes must raise its version: a key would else call features current that are not."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from extractors.registry import EXTRACTORS, load


def load_golden() -> ModuleType:
    """The script beside this file, as a module."""
    spec = importlib.util.spec_from_file_location("make_outputs", Path(__file__).with_name("make_outputs.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load_golden()
VERSIONS, RECORDED = golden.read_recorded()


@pytest.mark.parametrize("name", EXTRACTORS)
def test_output_is_the_recorded_one(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which would keep 300 MB of weights for three runs
        got = golden.compute(name, golden.weight_file(name, Path(folder)))
    assert golden.problem(name, VERSIONS, RECORDED, got) is None


def test_nothing_is_recorded_for_what_is_not_in_the_table() -> None:
    assert VERSIONS.keys() <= EXTRACTORS.keys(), "remove the rest by running tests/golden/make_outputs.py"
    assert (golden.HERE / "outputs.npz").stat().st_size < 200_000


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_changed_output_is_noticed(name: str) -> None:
    """In every array that was recorded, one value, by four limits of the array's largest."""
    for array, values in RECORDED[name].items():
        changed = values.copy()
        flat = changed.reshape(-1)
        known = np.flatnonzero(np.isfinite(flat.astype(np.float64)))
        if not len(known):
            continue
        at = known[np.abs(flat[known].astype(np.float64)).argmax()]
        limit = max(golden.LIMIT, *golden.LIMITS.values())
        flat[at] = flat[at] * (1 + 4 * limit) if flat.dtype.kind == "f" and flat[at] else not flat[at]
        why = golden.problem(name, VERSIONS, RECORDED, RECORDED[name] | {array: changed})
        assert why is not None
        assert why.startswith(f"{name}: output changed: raise {load(name).__name__}.version and run tests/golden/make_outputs.py ({array} ")


def test_every_way_in_which_an_output_may_change() -> None:
    recorded = {"defaults/values": np.array([[1.0, 2.0], [np.nan, np.nan]], np.float32)}
    values = recorded["defaults/values"]
    other: dict[str, Any] = {
        r"arrays are \['30 Hz/values', 'defaults/values'\], recorded are": {"defaults/values": values, "30 Hz/values": values},
        r"\(2, 2\) float64, recorded is \(2, 2\) float32": {"defaults/values": values.astype(np.float64)},
        r"is \(1, 2\)": {"defaults/values": values[:1]},
        "missing in other rows": {"defaults/values": values[::-1]},
        "differs by 0.0063, the limit is 1e-04": {"defaults/values": values * np.array([[1, 1.005], [1, 1]], np.float32)},
    }
    assert golden.difference("onet", recorded, recorded) is None
    assert golden.difference("onet", recorded, {"defaults/values": values * np.float32(1.00005)}) is None
    for said, got in other.items():
        assert re.search(said, str(golden.difference("onet", recorded, got)))


def test_a_raised_version_asks_for_a_new_record() -> None:
    onet, version = RECORDED["onet"], load("onet").version
    asked = f"onet: recorded is version 0, it now is {version}: run tests/golden/make_outputs.py"
    assert golden.problem("onet", {"onet": 0}, RECORDED, onet) == asked
    assert golden.problem("onet", {}, {}, onet) == "onet: no output is recorded: run tests/golden/make_outputs.py"


def test_recording_refuses_a_changed_output_under_the_same_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And takes it once the version is raised; what did not change keeps its bits."""
    logmel = load("logmel")
    monkeypatch.setattr(golden, "HERE", tmp_path)
    monkeypatch.setattr(golden, "EXTRACTORS", {name: EXTRACTORS[name] for name in ("timeline", "logmel")})
    monkeypatch.setattr(sys, "argv", ["make_outputs.py"])
    assert golden.main() == 0
    before = golden.read_recorded()[1]
    compute = golden.compute
    monkeypatch.setattr(
        golden, "compute", lambda name, weights: {a: v * (1 + (name == "logmel")) for a, v in compute(name, weights).items()}
    )
    capsys.readouterr()
    assert golden.main() == 1
    assert "nothing was written:\nlogmel: output changed: raise LogMel.version" in capsys.readouterr().err
    np.testing.assert_array_equal(golden.read_recorded()[1]["logmel"]["defaults/values"], before["logmel"]["defaults/values"])
    monkeypatch.setattr(logmel, "version", logmel.version + 1)
    assert golden.main() == 0
    versions, after = golden.read_recorded()
    assert versions == {"timeline": load("timeline").version, "logmel": logmel.version}
    np.testing.assert_array_equal(after["logmel"]["defaults/values"], 2 * before["logmel"]["defaults/values"])
