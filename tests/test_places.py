"""The words after --on."""

from __future__ import annotations

import re

import pytest

from pipeline.errors import RequestError
from pipeline.places import INLINE, KNOWN, MOST_WORKERS, Place, read_place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("inline", INLINE),
        ("local", Place(kind="local")),
        ("local:1", Place(kind="local", n_workers=1)),
        (f"local:{MOST_WORKERS}", Place(kind="local", n_workers=MOST_WORKERS)),
        ("slurm", Place(kind="slurm")),
        ("slurm:gpu", Place(kind="slurm", profile="gpu")),
        ("slurm:a:b", Place(kind="slurm", profile="a:b")),
        ("tcp://host:8786", Place(kind="address", address="tcp://host:8786")),
        ("tls://10.0.0.1:8786", Place(kind="address", address="tls://10.0.0.1:8786")),
        ("tcp://[::1]:8786", Place(kind="address", address="tcp://[::1]:8786")),
    ],
)
def test_what_is_known(text: str, place: Place) -> None:
    assert read_place(text) == place
    assert str(place) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "Inline", "inline:2", "somewhere", " local", "slurm:", "ucx://host:1", "http://host:1"),
        *("tcp://host", "tcp://:8786", "tcp://host:", "tcp://host:x", "tcp://a b:1", "tcp://host:8786/", "tcp://host:123456"),
    ],
)
def test_what_is_not(text: str) -> None:
    said = f"--on: cannot work on {text!r}; known: {KNOWN}"
    with pytest.raises(RequestError, match=f"^{re.escape(said)}$"):
        read_place(text)


@pytest.mark.parametrize("text", ["local:", "local:0", "local:-1", "local:two", "local:1.5", "local:\u0661", f"local:{MOST_WORKERS + 1}"])
def test_a_number_of_workers_that_is_none(text: str) -> None:
    said = f"--on: cannot work on {text!r}: a number of workers from 1 to {MOST_WORKERS} comes after 'local:'; known: {KNOWN}"
    with pytest.raises(RequestError, match=f"^{re.escape(said)}$"):
        read_place(text)
