"""Which features of a store a recipe reads, and what is said where they are not its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.store import Store, open_store
from pipeline.synth.store import MadeTrial, write_feature, write_index
from trainer.errors import TrainerError
from trainer.features import Chosen, choose_features
from trainer.recipe import Features

# name: its extractor and what it is of; `eyes` and `ears` are stages of a user's naming
KNOWN = {
    "ears": ("mfcc39", "audio"),
    "eyes": ("onet", "visual"),
    "eyes_2": ("onet", "visual"),
    "logmel": ("logmel", "audio"),
    "regnet": ("regnet", "visual"),
}


def made_store(folder: Path, known: Mapping[str, tuple[str, str | None]] = KNOWN) -> Store:
    folder.mkdir()
    digest = write_index(folder, [MadeTrial(name="1", n_rows=4)], {})
    for name, (extractor, modality) in known.items():
        block = (np.zeros((4, 2), np.float32), np.ones(4, np.bool_))
        write_feature(folder, name, [block], rows_digest=digest, shape=(4, 2))
        with h5py.File(folder / f"{name}.h5", "r+") as file:
            file.attrs["extractor"] = extractor
            if modality is not None:
                file.attrs["modality"] = modality
    return open_store(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return made_store(tmp_path / "store")


def test_by_name_in_the_recipes_order(store: Store) -> None:
    chosen = choose_features(store, Features(audio=("logmel", "ears"), visual=("regnet", "eyes")))
    assert chosen == Chosen(audio=("logmel", "ears"), visual=("regnet", "eyes"), notes=())
    assert chosen.names == ("logmel", "ears", "regnet", "eyes")


def test_by_extractor_all_that_it_made(store: Store) -> None:
    chosen = choose_features(store, Features(audio=("mfcc39",), visual=("onet",)))
    assert (chosen.audio, chosen.visual, chosen.notes) == (("ears",), ("eyes", "eyes_2"), ())


def test_each_once(store: Store) -> None:
    assert choose_features(store, Features(visual=("eyes_2", "onet", "regnet", "eyes"))).visual == ("eyes_2", "eyes", "regnet")


def test_a_name_goes_before_an_extractor(tmp_path: Path) -> None:
    store = made_store(tmp_path / "store", {"onet": ("regnet", "visual"), "eyes": ("onet", "visual")})
    assert choose_features(store, Features(visual=("onet",))).visual == ("onet",)


def test_a_kind_that_is_not_read_is_not_missed(store: Store) -> None:
    assert choose_features(store, Features(visual=("regnet",))) == Chosen(audio=(), visual=("regnet",))
    assert choose_features(store, Features()).names == ()


def test_others_of_the_kind_instead_and_it_is_said(store: Store) -> None:
    chosen = choose_features(store, Features(audio=("vggish", "wav2vec2"), visual=("regnet",)))
    assert (chosen.audio, chosen.visual) == (("ears", "logmel"), ("regnet",))
    assert chosen.notes == ("audio: ears, logmel instead of vggish, wav2vec2, which the store does not have",)
    both = choose_features(store, Features(audio=("vggish",), visual=("iresnet",)))
    assert both.visual == ("eyes", "eyes_2", "regnet")
    assert [note.partition(":")[0] for note in both.notes] == ["audio", "visual"]


def test_without_those_that_are_missing_and_it_is_said(store: Store) -> None:
    chosen = choose_features(store, Features(visual=("efficientnet", "onet", "dan_rafdb")))
    assert chosen.visual == ("eyes", "eyes_2"), "the recipe's own only"
    assert chosen.notes == ("visual: eyes, eyes_2; without efficientnet, dan_rafdb, which the store does not have",)


def test_nothing_of_a_kind(tmp_path: Path) -> None:
    store = made_store(tmp_path / "store", {"regnet": ("regnet", "visual")})
    expected = (
        r"store: no audio feature: the recipe reads vggish, mfcc39; the store's features are: regnet; run the stages of some, "
        r"name others with --set features.audio=\[NAME\], or leave them out with --set features.audio=\[\]$"
    )
    with pytest.raises(TrainerError, match=expected):
        choose_features(store, Features(audio=("vggish", "mfcc39"), visual=("regnet",)))
    assert choose_features(store, Features(visual=("regnet",))).names == ("regnet",), "as it says"


def test_a_store_without_any(tmp_path: Path) -> None:
    """Both kinds at once."""
    with pytest.raises(TrainerError, match=r"no audio feature: .* are: none; run (.|\n)*no visual feature: .* are: none; run") as caught:
        choose_features(made_store(tmp_path / "store", {}), Features(audio=("vggish",), visual=("regnet",)))
    assert len(caught.value.problems) == 2


def test_a_store_that_does_not_tell_what_is_heard(tmp_path: Path) -> None:
    """Of before stores told: its features can be named, and stand in for nothing."""
    store = made_store(tmp_path / "store", {"vggish": ("vggish", None), "eyes": ("onet", None)})
    chosen = choose_features(store, Features(audio=("vggish",), visual=("onet",)))
    assert (chosen.names, chosen.notes) == (("vggish", "eyes"), ())
    with pytest.raises(TrainerError, match=r"no audio feature: the recipe reads vggsh; .*; did you mean 'vggish'\? run the stages of some"):
        choose_features(store, Features(audio=("vggsh",)))
