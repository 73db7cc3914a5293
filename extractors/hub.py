"""Weights that another library's own means fetch, where the stages file says `weights: hub`: pinned by a revision or a digest.

Nothing here is asked while planning: a key holds the source and its revision, and the worker fetches before it builds the model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from extractors.contract import ExtractorError
from extractors.weights import FOLDER_FILES, FOLDER_TENSORS

REVISION = re.compile(r"[0-9a-f]{40}")
TORCHVISION_URL = "https://download.pytorch.org/models/"
TORCHVISION_FILE = re.compile(r"[\w.-]+-([0-9a-f]{8})\.pth")
CONFIG, PREPROCESSOR = FOLDER_FILES[:2]
INSTEAD = "or put the file or folder into a weights folder and give its name as 'weights'"


class Source(Protocol):
    """A frozen record of where weights come from. name: part of the key; pinned: its name decides the bytes, so it has no revision."""

    @property
    def name(self) -> str: ...

    @property
    def pinned(self) -> bool: ...

    def fetch(self, revision: str | None) -> Path:
        """The local file, or folder of a saved model. Raises ExtractorError where it cannot be had."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A source at one revision (None where it is pinned)."""

    source: Source
    revision: str | None

    @property
    def identity(self) -> str:
        """What stands for the weights in a key."""
        return f"hub:{self.source.name}" + (f"@{self.revision}" if self.revision else "")

    def fetch(self) -> Path:
        return self.source.fetch(self.revision)


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model's folder on Hugging Face: its configuration, its preprocessing where it has one, and its weights in one file."""

    repo: str
    pinned = False

    @property
    def name(self) -> str:
        return self.repo

    def fetch(self, revision: str | None) -> Path:
        def ask() -> Path:
            config = _one(self.repo, (CONFIG,), revision)
            try:
                _one(self.repo, (PREPROCESSOR,), revision)
            except FileNotFoundError as error:
                if _is_unreachable(error):
                    raise
            _one(self.repo, FOLDER_TENSORS, revision)
            return config.parent

        return _from_hugging_face(ask, self.repo, revision)


@dataclass(frozen=True, slots=True)
class TimmFile:
    """The weight file of a repository on Hugging Face in timm's layout. files: its names, the first that is there is taken."""

    repo: str
    files: tuple[str, ...] = FOLDER_TENSORS
    pinned = False

    @property
    def name(self) -> str:
        return self.repo

    def fetch(self, revision: str | None) -> Path:
        return _from_hugging_face(lambda: _one(self.repo, self.files, revision), self.repo, revision)


@dataclass(frozen=True, slots=True)
class TorchvisionFile:
    """A file that torchvision's weights name, as resnet18-f37072fd.pth. The digits are the first of its sha256, and are checked."""

    file: str
    pinned = True

    def __post_init__(self) -> None:
        if not TORCHVISION_FILE.fullmatch(self.file):
            raise ValueError(f"file: expected NAME-XXXXXXXX.pth, got {self.file!r}")

    @property
    def name(self) -> str:
        return f"torchvision/{self.file}"

    @property
    def sha256_prefix(self) -> str:
        return self.file[-12:-4]

    def fetch(self, revision: str | None) -> Path:
        import torch

        path, url = Path(torch.hub.get_dir()) / "checkpoints" / self.file, TORCHVISION_URL + self.file
        try:
            if not (path.is_file() and _sha256(path).startswith(self.sha256_prefix)):
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), hash_prefix=self.sha256_prefix, progress=False)
        except Exception as error:  # what is between here and there raises OSError, HTTPException, RuntimeError for a wrong digest, ...
            why = f"{type(error).__name__}: {_first_line(error)}"
            raise ExtractorError(f"{url} cannot be fetched", why=why, fix=f"check the network, then run again, {INSTEAD}") from error
        return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one(repo: str, files: Sequence[str], revision: str | None) -> Path:
    """The first of the files that the repository has at this revision: from the library's own cache where it is there, else fetched.

    Raises FileNotFoundError where it has none of them, and whatever the library raises.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    for file in files:
        if isinstance(known := huggingface_hub.try_to_load_from_cache(repo, file, revision=revision), str):
            return Path(known)
        if known is not None:  # it is remembered that the repository has no such file
            continue
        try:
            return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
        except EntryNotFoundError as error:
            if _is_unreachable(error):
                raise
    raise FileNotFoundError(f"it has no {' or '.join(files)} (a model in several files is not read)")


def _is_unreachable(error: Exception) -> bool:
    """Whether it says that a file could not be asked for, and not that it is not there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return isinstance(error, LocalEntryNotFoundError)


def _from_hugging_face(ask: Callable[[], Path], repo: str, revision: str | None) -> Path:
    what = f"weights of https://huggingface.co/{repo} at revision {revision} cannot be fetched"
    try:
        import huggingface_hub.errors as errors
    except ImportError as error:
        raise ExtractorError(what, why=str(error), fix=f"pip install 'affectpipe[hub]', {INSTEAD}") from error
    reasons: tuple[tuple[type[Exception], str, str], ...] = (
        (errors.GatedRepoError, "access to the repository must be granted first", "ask for it on its page"),
        (errors.RepositoryNotFoundError, "there is no such repository, or it is private", "mend its name"),
        (errors.RevisionNotFoundError, "the repository has no such revision", "take one from its history of commits"),
        (errors.LocalEntryNotFoundError, "there is no connection to it, and no copy in its cache", "check the network, then run again"),
        (FileNotFoundError, "", "take another revision"),
    )
    try:
        return ask()
    except Exception as error:  # a connection raises almost anything
        for kind, why, fix in reasons:
            if isinstance(error, kind):
                # beneath it is why there is none: a name that is not resolved, a connection that is refused
                cause = f" ({_first_line(error.__cause__)})" if isinstance(error.__cause__, Exception) and _is_unreachable(error) else ""
                raise ExtractorError(what, why=f"{why or _first_line(error)}{cause}", fix=f"{fix}, {INSTEAD}") from error
        why = f"{type(error).__name__}: {_first_line(error)}"
        raise ExtractorError(what, why=why, fix=f"check the network, then run again, {INSTEAD}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
