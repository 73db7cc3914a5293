"""Weights that are fetched: what a stages file may say, what stands in a key, and every way in which fetching fails."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from extractors import hub
from extractors.contract import ExtractorError
from extractors.hub import Remote, SavedModel, TimmFile, TorchvisionFile
from extractors.registry import load as load_extractor
from pipeline.cache import Cache
from pipeline.config import load
from pipeline.errors import PassingError, RequestError
from pipeline.plan import make_plan
from pipeline.worker import Worker

REVISION = "0123456789abcdef0123456789abcdef01234567"
HEAD = "version: 1\nstages:\n  timeline: {use: timeline}\n  f: {use: mtcnn}\n"
INSTEAD = r"or put the file or folder into a weights folder and give its name as 'weights'$"
REPOS = {
    "me/whole": {"config.json": b"{}", "preprocessor_config.json": b"{}", "model.safetensors": b"tensors", "pytorch_model.bin": b"more"},
    "me/plain": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "me/parts": {"config.json": b"{}", "model-00001-of-00002.safetensors": b"half"},
}


class Hub(BaseHTTPRequestHandler):
    """As much of Hugging Face as fetching a file needs."""

    asked: list[str] = []  # noqa: RUF012  of all requests, for the tests to look at

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self.asked.append(self.path)
        owner, name, _, revision, file = self.path.strip("/").split("/", 4)
        files = REPOS.get(f"{owner}/{name}")
        wrong = (
            "RepoNotFound"
            if files is None
            else "RevisionNotFound"
            if revision != REVISION
            else "EntryNotFound"
            if file not in files
            else ""
        )
        wrong = "GatedRepo" if name == "gated" else wrong
        body = b"" if wrong or files is None else files[file]
        self.send_response(403 if wrong == "GatedRepo" else 404 if wrong else 200)
        if wrong:
            self.send_header("X-Error-Code", wrong)
        self.send_header("X-Repo-Commit", revision)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """huggingface_hub asks a server of ours and keeps what it gets below tmp_path. The paths that were asked for."""
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    Hub.asked.clear()
    yield Hub.asked
    server.shutdown()
    server.server_close()


def test_a_saved_model_is_fetched_once_and_the_second_pickle_not_at_all(hugging_face: list[str]) -> None:
    folder = SavedModel("me/whole").fetch(REVISION)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert (folder / "model.safetensors").read_bytes() == b"tensors"
    hugging_face.clear()
    assert SavedModel("me/whole").fetch(REVISION) == folder
    assert hugging_face == [], "a revision does not change, so nothing is asked again"


def test_what_is_not_there_is_done_without(hugging_face: list[str]) -> None:
    folder = SavedModel("me/plain").fetch(REVISION)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "pytorch_model.bin"]
    assert TimmFile("me/plain").fetch(REVISION).read_bytes() == b"pickle"
    hugging_face.clear()
    SavedModel("me/plain").fetch(REVISION)
    assert hugging_face == [], "that a file is not there is remembered too"


@pytest.mark.parametrize(
    ("repo", "revision", "why"),
    [
        ("me/nobody", REVISION, "there is no such repository, or it is private; mend its name"),
        ("me/whole", "f" * 40, "the repository has no such revision; take one from its history"),
        ("me/gated", REVISION, "access to the repository must be granted first; ask for it"),
        ("me/parts", REVISION, r"it has no model.safetensors or pytorch_model.bin \(a model in several files is not read\)"),
        ("not a name", REVISION, "HFValidationError: "),
    ],
)
@pytest.mark.usefixtures("hugging_face")
def test_what_cannot_be_fetched_is_one_whole_error(repo: str, revision: str, why: str) -> None:
    for source in (SavedModel(repo), TimmFile(repo)):
        with pytest.raises(ExtractorError, match=rf"huggingface\.co/{repo} at revision {revision} cannot be fetched: {why}.*{INSTEAD}"):
            source.fetch(revision)


@pytest.mark.usefixtures("hugging_face")
def test_offline_what_was_fetched_is_found_and_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    folder = SavedModel("me/plain").fetch(REVISION)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert SavedModel("me/plain").fetch(REVISION) == folder
    for source in (SavedModel("me/whole"), TimmFile("me/whole")):
        with pytest.raises(
            ExtractorError, match=r"there is no connection to it, and no copy in its cache.*check the network, then run again"
        ):
            source.fetch(REVISION)


@pytest.mark.slow
def test_no_network_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an address at which nobody listens: what the library raises after all its tries."""
    from huggingface_hub import constants

    url = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    with pytest.raises(
        ExtractorError, match=rf"no connection to it, and no copy in its cache \(.*refused.*\); check the network.*{INSTEAD}"
    ):
        SavedModel("me/whole").fetch(REVISION)


@pytest.fixture
def torchvision_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, TorchvisionFile]:
    """The file as published, where its copy will be, and its source."""
    import torch

    content = b"weights"
    file = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / file).write_bytes(content)
    monkeypatch.setattr(hub, "TORCHVISION_URL", f"file://{tmp_path}/published/")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "published" / file, tmp_path / "torch" / "checkpoints" / file, TorchvisionFile(file)


def test_torchvisions_file_is_fetched_where_torchvision_keeps_it(torchvision_file: tuple[Path, Path, TorchvisionFile]) -> None:
    published, kept, source = torchvision_file
    assert source.fetch(None) == kept
    published.unlink()
    assert source.fetch(None).read_bytes() == b"weights", "it is not asked for again"


def test_a_damaged_copy_is_fetched_again_and_a_wrong_file_refused(torchvision_file: tuple[Path, Path, TorchvisionFile]) -> None:
    published, kept, source = torchvision_file
    source.fetch(None)
    kept.write_bytes(b"damaged")
    assert source.fetch(None).read_bytes() == b"weights"
    kept.unlink()
    published.write_bytes(b"another")
    with pytest.raises(ExtractorError, match=rf"{source.file} cannot be fetched: RuntimeError: invalid hash value.*{INSTEAD}"):
        source.fetch(None)
    assert not kept.exists()
    published.unlink()
    with pytest.raises(ExtractorError, match=rf"{source.file} cannot be fetched: URLError: .*No such file.*{INSTEAD}"):
        source.fetch(None)


@pytest.mark.parametrize("file", ["net.pth", "net-XYZ.pth", "../net-0123abcd.pth", "a/net-0123abcd.pth", ""])
def test_a_name_without_a_digest_pins_nothing(file: str) -> None:
    with pytest.raises(ValueError, match=r"^file: expected NAME-XXXXXXXX\.pth"):
        TorchvisionFile(file)


def read(folder: Path, text: str) -> Any:
    path = folder / "stages.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return load(path)


def test_the_key_holds_source_and_revision_and_planning_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SavedModel, "fetch", lambda source, revision: pytest.fail("planning fetched"))
    config = read(tmp_path, f'  v: {{use: "hf:facebook/dino-vits16", weights: hub, revision: "{REVISION}"}}\n')
    stage = config.stage("v")
    assert stage.remote == Remote(source=SavedModel("facebook/dino-vits16"), revision=REVISION)
    plan = make_plan(config, (), Cache(tmp_path / "cache"))
    assert plan.parts["v"]["weights"] == f"hub:facebook/dino-vits16@{REVISION}"
    assert plan.parts["v"]["extractor"] == "hf:facebook/dino-vits16"
    assert plan.weights == {}


class Pinned:
    """An outside extractor whose weights are a file of torchvision's, with one of its choices published."""

    @staticmethod
    def hub(params: Any) -> TorchvisionFile | None:
        return TorchvisionFile("net-0123abcd.pth")


def test_a_pinned_file_needs_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iresnet50 = load_extractor("iresnet50")
    monkeypatch.setattr(iresnet50, "hub", Pinned.hub, raising=False)
    config = read(tmp_path, "  v: {use: iresnet50, weights: hub}\n")
    assert make_plan(config, (), Cache(tmp_path / "cache")).parts["v"]["weights"] == "hub:torchvision/net-0123abcd.pth"
    with pytest.raises(RequestError, match=r":5: stages\.v\.revision: torchvision/net-0123abcd\.pth is pinned by its name; remove it$"):
        read(tmp_path, f'  v: {{use: iresnet50, weights: hub, revision: "{REVISION}"}}\n')
    monkeypatch.setattr(iresnet50, "hub", lambda params: None)
    with pytest.raises(RequestError, match=r"stages\.v\.weights: iresnet50 cannot fetch its weights: nothing is published for these param"):
        read(tmp_path, "  v: {use: iresnet50, weights: hub}\n")


HF = 'use: "hf:facebook/dino-vits16"'
MISTAKES = {
    "cannot": ("use: iresnet50, weights: hub", r"weights: iresnet50 cannot fetch its weights; name a file; it comes from the model zoo"),
    "no revision": (
        f"{HF}, weights: hub",
        r"weights: needs 'revision: COMMIT' beside it; take it from https://huggingface.co/facebook/dino",
    ),
    "branch": (f"{HF}, weights: hub, revision: main", r"revision: must be 40 hexadecimal digits, small letters, in quotes; take it from"),
    "a number": (f"{HF}, weights: hub, revision: {'1' * 40}", r"revision: must be 40 hexadecimal digits, small letters, in quotes"),
    "short": (f"{HF}, weights: hub, revision: abcdef0", r"revision: must be 40 hexadecimal digits"),
    "of a file": (
        f"{HF}, weights: a, revision: {REVISION}a",
        r"revision: is of weights that are fetched; remove it, or write 'weights: hub'",
    ),
    "sha256": (f"{HF}, weights: hub, revision: '{REVISION}', sha256: '{'a' * 64}'", r"sha256: is of a weight file; fetched weights are"),
    "nothing": (HF, r"needs 'weights: FILE'; its file comes from https://huggingface.co/facebook/dino-vits16, or write 'weights: hub'"),
    "not wanted": (f"use: onet, revision: '{REVISION}'", r"revision: onet takes no weight file; remove it"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str, tmp_path: Path) -> None:
    node, said = MISTAKES[name]
    with pytest.raises(RequestError, match=rf"^stages\.yaml:5: stages\.v(\.\w+)?: ?{said}|^stages\.yaml:5: stages\.v\.{said}") as caught:
        read(tmp_path, f"  v: {{{node}}}\n")
    assert len(caught.value.problems) == 1


def test_the_worker_fetches_before_it_builds_and_asks_once_for_what_it_cannot_get(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def refuse(source: SavedModel, revision: str | None) -> Path:
        asked.append(revision)
        raise ExtractorError("weights cannot be fetched", why="no network", fix="use a file")

    monkeypatch.setattr(SavedModel, "fetch", refuse)
    worker, remote = Worker(), Remote(source=SavedModel("me/whole"), revision=REVISION)
    for _ in range(2):
        with pytest.raises(PassingError, match=r"^stages\.v\.weights: weights cannot be fetched: no network; use a file$"):
            worker._fetched("v", remote)
    assert asked == [REVISION]
    monkeypatch.setattr(SavedModel, "fetch", lambda source, revision: Path("here"))
    assert worker._fetched("v", replace(remote, revision="f" * 40)) == Path("here")
