"""Running OpenFace's program: finding it, what it is given, and every way in which it may fail. A script stands for it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import openface
from pipeline.errors import PassingError, RequestError, TrialError
from pipeline.memo import StatMemo

Write = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """program(code): a program that runs it, with its arguments as `args` and its output folder as `folder`, named by $OPENFACE."""

    def write(code: str) -> Path:
        path = tmp_path / "FeatureExtraction"
        head = f"#!{sys.executable}\nimport json, os, sys, time\nargs = sys.argv[1:]\nfolder = args[args.index('-out_dir') + 1]\n"
        path.write_text(head + code)
        path.chmod(0o755)
        monkeypatch.setenv("OPENFACE", str(path))
        return path

    return write


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENFACE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.usefixtures("nowhere")
def test_a_missing_program_is_told_with_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    both = r"set OPENFACE=/path/to/FeatureExtraction, or give the stage `root: DIR`"
    with pytest.raises(
        RequestError, match=rf"there is no FeatureExtraction of OpenFace: \$OPENFACE is not set, and the PATH has none; {both}"
    ):
        openface.binary()
    (tmp_path / "text").write_text("not to be run")
    for named in (tmp_path / "absent", tmp_path / "text", tmp_path):
        monkeypatch.setenv("OPENFACE", str(named))
        with pytest.raises(RequestError, match=rf"^OPENFACE: .*\$OPENFACE is '{named}', which is no program; {both}"):
            openface.version(StatMemo(tmp_path / "memo.json"))


@pytest.mark.usefixtures("nowhere")
def test_it_is_found_on_the_path_or_as_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("bin", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "FeatureExtraction").write_text(folder)
        (tmp_path / folder / "FeatureExtraction").chmod(0o755)
    assert openface.binary() == tmp_path / "bin" / "FeatureExtraction"
    monkeypatch.setenv("OPENFACE", str(tmp_path / "elsewhere" / "FeatureExtraction"))
    assert openface.binary() == tmp_path / "elsewhere" / "FeatureExtraction"
    (tmp_path / "link").symlink_to(tmp_path / "bin" / "FeatureExtraction")
    monkeypatch.setenv("OPENFACE", str(tmp_path / "link"))
    assert openface.binary() == tmp_path / "link"
    assert openface.version(StatMemo(tmp_path / "memo.json")) == f"openface {hashlib.sha256(b'bin').hexdigest()}"


def test_it_is_given_words_not_a_command_line(program: Write, tmp_path: Path) -> None:
    program("open(os.path.join(folder, 'out.csv'), 'w').write(json.dumps(args))\nprint('chatty ' * 100_000)")
    source = tmp_path / "a b; rm -rf $HOME 'ä'.mp4"
    with openface.computed_table(source, 3) as path:
        args = json.loads(path.read_text())
        assert args == ["-f", str(source), "-out_dir", str(path.parent), "-aus"]
    assert not path.parent.exists()


FAILURES: dict[str, tuple[str, type[Exception], str]] = {
    "exit status": (
        "print('loading'); print('ERROR: cannot open'); sys.exit(1)",
        TrialError,
        "gave no table: exit status 1: ERROR: cannot open",
    ),
    "complaint": ("print('a'); print('b', file=sys.stderr); sys.exit(3)", TrialError, "gave no table: exit status 3: b; run Feature"),
    "silent": ("sys.exit(2)", TrialError, "gave no table: exit status 2; run FeatureExtraction on it yourself"),
    "nothing": ("print('done')", TrialError, "gave no table: it wrote 0 tables, expected one"),
    "two": ("[open(os.path.join(folder, f'{n}.csv'), 'w') for n in 'ab']", TrialError, "it wrote 2 tables, expected one"),
    "killed": ("os.kill(os.getpid(), 9)", PassingError, "FeatureExtraction was ended: by signal 9; run again, with more memory"),
    "hang": ("time.sleep(60)", PassingError, r"FeatureExtraction hangs: it did not end within 1 s; run again"),
    "chatty hang": ("while True: print('.', flush=True); time.sleep(0.05)", PassingError, "FeatureExtraction hangs"),
    "hang after its output": ("os.close(1); os.close(2); time.sleep(60)", PassingError, "FeatureExtraction hangs"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_told_as_what_it_is(case: str, program: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, error, said = FAILURES[case]
    program(code)
    monkeypatch.setattr(openface, "START_S", 1.0 if "hang" in case else 30.0)
    with pytest.raises(error, match=rf"^clip\.mp4: .*{said}"), openface.computed_table(tmp_path / "clip.mp4", 0):
        pytest.fail("there is no table")


def test_a_program_that_cannot_be_started_is_told(program: Write, tmp_path: Path) -> None:
    program("").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(OSError, match="Exec format error"), openface.computed_table(tmp_path / "clip.mp4", 0):
        pytest.fail("there is no table")
