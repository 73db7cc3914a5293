"""Sealed files: every flipped bit is noticed, and nothing in them can lead a reader elsewhere."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.hdf5 import CHECKSUM, CorruptFileError, guarded_file, is_whole, read_texts, sealed_file, text_attr, write_texts


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "file.h5"
    with sealed_file(path) as file:
        file["values"] = np.arange(6, dtype=np.float32).reshape(3, 2)
        file["deep/valid"] = np.array([True, False, True])
        file.attrs["format"] = "a/format"
        write_texts(file, "names", ["one", "zwölf"])
    return path


def test_a_sealed_file_is_whole_and_reads_as_written(sealed: Path) -> None:
    assert is_whole(sealed)
    with guarded_file(sealed) as file:
        assert file["values"][2].tolist() == [4.0, 5.0]
        assert file["deep/valid"][:].tolist() == [True, False, True]
        assert text_attr(file.attrs, "format") == "a/format"
        assert text_attr(file.attrs, CHECKSUM).startswith("sha256:")
        assert read_texts(file, "names") == ["one", "zwölf"]
    assert is_whole(sealed)  # reading changed nothing


def test_plain_h5py_reads_it_too(sealed: Path) -> None:
    with h5py.File(sealed) as file:
        assert file["names"].asstr()[:].tolist() == ["one", "zwölf"]
        assert file["names"].dtype.kind == "S"


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        with sealed_file(tmp_path / name) as file:
            file["values"] = np.arange(4)
            file.attrs["x"] = "y"
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_every_flipped_byte_is_found(sealed: Path) -> None:
    """At each byte another of its eight bits, and at every byte of the seal all eight."""
    whole = sealed.read_bytes()
    at = whole.index(b"sha256:")
    seal = range(at, at + len("sha256:") + 64)
    flips = [(i, i % 8) for i in range(len(whole)) if i not in seal] + [(i, bit) for i in seal for bit in range(8)]
    unnoticed = []
    data = bytearray(whole)
    with sealed.open("r+b", buffering=0) as raw:
        for i, bit in flips:
            data[i] ^= 1 << bit
            raw.seek(i)
            raw.write(data[i : i + 1])
            if is_whole(sealed):
                unnoticed.append((i, bit))
            data[i] = whole[i]
            raw.seek(i)
            raw.write(data[i : i + 1])
    assert unnoticed == []
    assert is_whole(sealed)


def test_a_file_of_another_length_is_found(sealed: Path) -> None:
    whole = sealed.read_bytes()
    for length in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        sealed.write_bytes(whole[:length])
        assert not is_whole(sealed)
    for more in (b"\0", b"more", whole):
        sealed.write_bytes(whole + more)
        assert not is_whole(sealed)
    sealed.write_bytes(b"\0" * len(whole))
    assert not is_whole(sealed)


def test_an_interrupted_file_is_not_sealed(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"

    def write() -> None:
        with sealed_file(path) as file:
            file["values"] = np.arange(4)
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        write()
    assert not is_whole(path)


@pytest.mark.parametrize("text", ["sha256:" + "0" * 64, "sha256:" + "ab" * 32])
def test_a_text_like_a_seal_is_refused_when_it_is_written(tmp_path: Path, text: str) -> None:
    """Afterwards nobody could tell which of the two is the seal, and the file would be computed anew for ever."""
    with pytest.raises(ValueError, match="expected one text like a checksum, the blank one, got 2"), sealed_file(tmp_path / "f.h5") as file:
        file.attrs["params"] = text


def test_many_and_long_attributes_leave_one_seal(tmp_path: Path) -> None:
    """HDF5 moves attributes about as an object's header grows; a seal that was left behind in a gap would count twice."""
    path = tmp_path / "file.h5"
    with sealed_file(path) as file:
        for i in range(60):
            file.attrs[f"attribute_{i}"] = "x" * (37 * i)
    assert is_whole(path)


def external_link(file: h5py.File, folder: Path) -> None:
    file["deep/trap"] = h5py.ExternalLink(str(folder / "secret.h5"), "values")


def soft_link(file: h5py.File, folder: Path) -> None:
    file["trap"] = h5py.SoftLink("/values")


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((3,), np.int64)
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "values", (3,))
    file.create_virtual_dataset("trap", layout)


def external_storage(file: h5py.File, folder: Path) -> None:
    file.create_dataset("trap", (3,), np.int64, external=[(str(folder / "secret.bin"), 0, 24)])


def objects(file: h5py.File, folder: Path) -> None:
    file.create_dataset("trap", data=["a", "b"], dtype=h5py.string_dtype())


def references(file: h5py.File, folder: Path) -> None:
    file.create_dataset("trap", data=[file.ref], dtype=h5py.ref_dtype)


def named_type(file: h5py.File, folder: Path) -> None:
    file["trap"] = np.dtype("f4")


@pytest.mark.parametrize(
    ("set_trap", "text"),
    [
        (external_link, "deep/trap is a ExternalLink, which may lead outside the file"),
        (soft_link, "trap is a SoftLink, which may lead outside the file"),
        (virtual, "trap is not a plain dataset inside the file"),
        (external_storage, "trap is not a plain dataset inside the file"),
        (objects, "trap is not a plain dataset inside the file"),
        (references, "trap is not a plain dataset inside the file"),
        (named_type, "trap is not a plain dataset inside the file"),
    ],
)
def test_a_trap_is_refused_although_the_seal_is_right(tmp_path: Path, set_trap: Callable[[h5py.File, Path], None], text: str) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["values"] = np.arange(3)
    (tmp_path / "secret.bin").write_bytes(b"\1" * 24)
    path = tmp_path / "file.h5"
    with sealed_file(path) as file:
        file["values"] = np.arange(3)
        set_trap(file, tmp_path)
    assert is_whole(path)
    with pytest.raises(CorruptFileError, match=text), guarded_file(path):
        pass


def test_a_circle_of_hard_links_ends(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with sealed_file(path) as file:
        file["a/b/values"] = np.arange(3)
        file["a/b/again"] = file["a"]
        file["top"] = file["/"]
    with guarded_file(path) as file:
        assert file["a/b/again/b/values"][:].tolist() == [0, 1, 2]


def test_a_deep_file_is_walked(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with sealed_file(path) as file:
        group: h5py.Group = file
        for _ in range(1500):
            group = group.create_group("g")
        group["trap"] = h5py.SoftLink("/")
    with pytest.raises(CorruptFileError, match="trap is a SoftLink"), guarded_file(path):
        pass


def test_what_is_no_hdf5_file(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    for content in (b"", b"no HDF5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 500):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"file\.h5: "), guarded_file(path):
            pass
    with pytest.raises(FileNotFoundError, match="No such file"), guarded_file(tmp_path / "nothing.h5"):
        pass


def test_a_missing_text_is_an_error(sealed: Path) -> None:
    with guarded_file(sealed) as file, pytest.raises(CorruptFileError, match="the attribute 'nothing' is missing or not text"):
        text_attr(file.attrs, "nothing")


def test_texts_of_all_lengths(tmp_path: Path) -> None:
    for texts in ([], [""], ["", "a"], ["x" * 300, "ü" * 150, "日本"]):
        with sealed_file(tmp_path / "file.h5") as file:
            write_texts(file, "names", texts)
        with guarded_file(tmp_path / "file.h5") as file:
            assert read_texts(file, "names") == texts


def huge(file: h5py.File) -> None:
    file.create_dataset("values", (1 << 50, 512), np.float32)  # never written: costs no byte


def compressed(file: h5py.File) -> None:
    file.create_dataset("values", data=np.zeros(1 << 20), compression="gzip")


def chunked(file: h5py.File) -> None:
    file.create_dataset("values", (1 << 50,), np.float32, chunks=(1 << 20,))


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (huge, r"values claims 2305843009213693952 bytes, the file has \d{3,4}$"),
        (compressed, "values is chunked, expected contiguous and uncompressed data"),
        (chunked, "values is chunked, expected contiguous and uncompressed data"),
    ],
)
def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, write: Callable[[h5py.File], None], text: str) -> None:
    with sealed_file(tmp_path / "file.h5") as file:
        write(file)
    with pytest.raises(CorruptFileError, match=rf"file\.h5: /+{text}"), guarded_file(tmp_path / "file.h5"):
        pass


def test_what_its_reader_finds_wrong_names_the_file(sealed: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"/file\.h5: the attribute 'nothing' is missing"), guarded_file(sealed) as file:
        text_attr(file.attrs, "nothing")


NO_ROOM = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from pipeline.hdf5 import sealed_file
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
try:
    with sealed_file(Path(sys.argv[2])) as file:
        for number in range(5):
            file.create_dataset(f"small{number}", data=np.arange(100.0))
        large = file.create_dataset("large", (100_000, 4), "float32")
        for start in range(0, 100_000, 500):
            large[start : start + 500] = start
        file.attrs["last"] = "x" * 1000
except OSError as error:
    print(error.errno, end="")
"""


@pytest.mark.parametrize("n_bytes", [0, 1, 3_000, 5_000, 20_000, 100_000, 1_600_000])
def test_where_there_is_no_room_that_is_an_error_and_nothing_else(n_bytes: int, tmp_path: Path) -> None:
    """Wherever it ends. HDF5 itself cannot close such a file, says so without being asked, and crashes as the process ends."""
    argv = [sys.executable, "-c", NO_ROOM, str(n_bytes), str(tmp_path / "file.h5")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, str(errno.EFBIG), "")


# A signal may come up between the two `with` of `sealed_file`; a frame or a traceback then holds HDF5's file longer than its own.
LATE = """
import sys
from pathlib import Path
import h5py, numpy as np
from pipeline.hdf5 import _NewFile
new = _NewFile(Path(sys.argv[1]), "w+")
file = h5py.File(new, "w", libver="earliest")
file["values"] = np.arange(100_000)
new.close()
if sys.argv[2] == "collected":
    del file
print("done", end="")
"""


@pytest.mark.parametrize("when", ["collected", "as the process ends"])
def test_a_file_that_is_closed_too_late_says_nothing(when: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE, str(tmp_path / "file.h5"), when], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done", "")
