"""Decoding processes that are kept: used again, replaced when they die or hang, gone with their parent, and ahead by a few batches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import decoders, video
from pipeline.decoders import Decoder
from pipeline.errors import PassingError, TransientError, TrialError
from pipeline.records import BATCH_BYTES, BATCH_FRAMES, SLOTS
from pipeline.sample import read_frame_number, write_sample

LONG = "crying_640.mp4"  # 472 frames, three times what all slots hold


@pytest.fixture(autouse=True)
def _none_before() -> Iterator[None]:
    decoders.stop_idle()
    yield
    decoders.stop_idle()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each frame has its number drawn into it."""
    return write_sample(tmp_path_factory.mktemp("sample") / "data", clips=1, seconds=2.0).videos / "106.mp4"


def idle() -> Decoder:
    """The process that the next request will have."""
    with decoders.lent(20.0) as decoder:
        return decoder


def is_there(pid: int) -> bool:
    """Zombies, which their parent has yet to ask for, do not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_gone(pid: int, within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    while is_there(pid):
        if time.monotonic() > until_s:
            return False
        time.sleep(0.02)
    return True


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="which processes there are is looked up in /proc")


def every(path: Path, n: int) -> Iterator[Any]:
    return video.frames(path, np.arange(n), n)


def sums(batches: Any) -> list[int]:
    return [int(image.sum()) for batch in batches for image in batch.images]


def test_one_process_serves_one_request_after_another(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n")
    pid = idle().process.pid
    for _ in range(3):
        n = len(video.frame_times(clip).times_s)
        assert [read_frame_number(image) for batch in every(clip, n) for image in batch.images] == list(range(n))
        with pytest.raises(TrialError, match=r"text\.mp4: cannot be decoded: "):
            video.probe(tmp_path / "text.mp4")
        with pytest.raises(TrialError, match=f"fewer frames than before: {n + 5} frames were wanted, {n} came"):
            list(every(clip, n + 5))
    assert idle().process.pid == pid


def test_pictures_stay_what_they_are_while_others_are_decoded(media: Path) -> None:
    """Whoever keeps some, keeps them: their slot is not filled again, not even for the next request."""
    first = next(every(media / LONG, 300)).images[3]
    kept = [batch.images for batch in every(media / LONG, 100)]
    views = [images[-1, 10:300, ::3] for images in kept]
    was = [int(images.sum()) for images in kept], [view.copy() for view in views], first.copy()
    del kept[1:]
    for _ in range(2):
        assert len(sums(every(media / "speech_512.mp4", 200))) == 200
    assert int(kept[0].sum()) == was[0][0]
    assert all(np.array_equal(view, copy) for view, copy in zip(views, was[1], strict=True))
    assert np.array_equal(first, was[2])


def test_pictures_can_be_written_to(media: Path) -> None:
    for batch in every(media / "speech_512.mp4", 60):
        assert batch.images.flags.writeable
        batch.images[:] = 0
    assert min(sums(every(media / "speech_512.mp4", 60))) > 0


@pytest.mark.parametrize(("name", "longest"), [("speech_512.mp4", BATCH_FRAMES), ("crowd_1080p.mp4", BATCH_BYTES // (1920 * 1080 * 3))])
def test_batches_follow_from_the_pictures_alone(media: Path, name: str, longest: int) -> None:
    expected = [longest] * (100 // longest) + [100 % longest] * bool(100 % longest)
    for pause_s in (0, 0.02):
        lengths = []
        for batch in every(media / name, 100):
            lengths.append(len(batch.images))
            time.sleep(pause_s)
        assert lengths == expected


@needs_proc
def test_a_slow_reader_is_waited_for(media: Path) -> None:
    """What is decoded ahead fills the slots and no more, and the process then rests."""
    decoder = idle()
    batches = every(media / LONG, 472)
    found = sums([next(batches)])

    def spent() -> list[str]:
        return Path(f"/proc/{decoder.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    before: list[str] = []
    while (now := spent()) != before:
        before = now
        time.sleep(0.3)
    ahead = sum(os.fstat(file).st_blocks * 512 for file in decoder._files)
    assert ahead <= SLOTS * BATCH_BYTES
    assert ahead > 2 * BATCH_FRAMES * 640 * 360 * 3, "it was not ahead by two batches"
    assert len(found + sums(batches)) == 472


@needs_proc
def test_who_stops_early_leaves_no_process(media: Path) -> None:
    idle()
    batches = every(media / LONG, 472)
    first = next(batches).images
    was, pids = first.copy(), children()
    batches.close()
    assert len(pids) == 1
    assert is_gone(pids[0], 1.0)
    assert np.array_equal(first, was)
    assert idle().process.pid != pids[0]


def children() -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid() and b"pipeline.decoder" in entry.with_name("cmdline").read_bytes():
            found.append(int(entry.parent.name))
    return found


def test_two_videos_at_once(media: Path) -> None:
    alone = [sums(every(media / name, 150)) for name in (LONG, "speech_512.mp4")]
    both: tuple[list[int], list[int]] = ([], [])
    readers = [every(media / name, 150) for name in (LONG, "speech_512.mp4")]
    while any(batches := [next(reader, None) for reader in readers]):
        for sink, batch in zip(both, batches, strict=True):
            sink += sums([batch] if batch else [])
    assert list(both) == alone
    with decoders.lent(20.0) as one, decoders.lent(20.0) as other:
        assert one.process.pid != other.process.pid
        assert one._n_served
        assert other._n_served


def test_threads_have_a_process_each_and_few_are_kept(clip: Path) -> None:
    n = len(video.frame_times(clip).times_s)
    expected = sums(every(clip, n))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: sums(every(clip, n)), range(8))) == [expected] * 8
    assert len(decoders._pool._idle) == decoders.IDLE


@needs_proc
@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGSEGV])
def test_an_idle_process_that_dies_is_replaced(clip: Path, signalled: int) -> None:
    pid = idle().process.pid
    assert video.probe(clip)["video"] is not None
    os.kill(pid, signalled)
    assert len(video.frame_times(clip).times_s) > 30
    assert idle().process.pid != pid


@needs_proc
def test_one_that_dies_at_work_is_replaced_where_it_had_served_others(media: Path) -> None:
    expected = sums(every(media / LONG, 472))
    batches = every(media / LONG, 472)
    found = sums([next(batches), next(batches)])
    os.kill(children()[0], signal.SIGKILL)
    assert found + sums(batches) == expected


@needs_proc
@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        (signal.SIGSEGV, TrialError, "the decoder crashed: exit status -11: .*; leave the file out"),
        (signal.SIGKILL, TransientError, "the decoder was killed: exit status -9: it said nothing; run again"),
    ],
)
def test_one_that_dies_of_its_first_request_is_a_failure(media: Path, how: signal.Signals, kind: type[Exception], said: str) -> None:
    """A crash would come again; who is killed from outside may fare better."""
    batches = every(media / LONG, 472)
    next(batches)
    os.kill(children()[0], how)
    with pytest.raises(kind, match=f"{LONG}: {said}"):
        list(batches)
    assert len(sums(every(media / LONG, 10))) == 10


@needs_proc
def test_a_hang_is_a_passing_failure_and_the_process_is_replaced(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = idle().process.pid
    os.kill(pid, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr(video, "STALL_S", 0.3)
        with pytest.raises(PassingError, match=r"106\.mp4: the decoder hangs: no output for 0\.3 s; run again"):
            video.probe(clip)
    assert is_gone(pid, 1.0)
    assert video.probe(clip)["video"] is not None
    assert idle().process.pid != pid


# Prints its decoder's id and waits to be killed.
PARENT = """
import os, sys, time
from pathlib import Path
import numpy as np
from pipeline import decoders, video
with decoders.lent(20.0) as decoder:
    pid = decoder.process.pid
clip, state = Path(sys.argv[1]), sys.argv[2]
video.probe(clip)
if state == "busy":
    frames = video.frames(clip, np.arange(472), 472)
    next(frames)
if state == "forked" and os.fork() == 0:
    time.sleep(3)  # has copies of all pipes
    os._exit(0)
print(pid, flush=True)
if state != "ends":
    time.sleep(60)
"""


@needs_proc
@pytest.mark.parametrize("state", ["idle", "busy", "forked", "ends"])
def test_no_process_outlives_its_parent(media: Path, state: str) -> None:
    words = [sys.executable, "-X", "dev", "-c", PARENT, str(media / LONG), state]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        pid = int(parent.stdout.readline())
        if state != "ends":
            assert is_there(pid)
            parent.kill()
        said = parent.stderr.read() if state == "ends" else ""
        parent.wait(20)
    assert is_gone(pid, 1.0)
    assert said == "", "a process or a pipe was left to the interpreter's end"


FORKS = """
import os, sys
from pathlib import Path
from pipeline import decoders, video

def pid():
    with decoders.lent(20.0) as decoder:
        return decoder.process.pid

first = pid()
fork = os.fork()
if fork == 0:
    found = video.probe(Path(sys.argv[1]))["video"]
    mine = pid()
    decoders.stop_idle()
    os._exit(0 if found is not None and mine != first else 1)
assert os.waitpid(fork, 0)[1] == 0
assert video.probe(Path(sys.argv[1]))["video"] is not None
assert pid() == first
"""


def test_a_forked_process_has_its_own(clip: Path) -> None:
    assert subprocess.run([sys.executable, "-c", FORKS, str(clip)], timeout=60).returncode == 0
