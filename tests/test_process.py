"""Running another program: what it gives, when it is taken for hanging, and that nothing of it is left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pipeline.process import ERROR_BYTES, Process, StalledError

ECHO = "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line.upper()); sys.stdout.buffer.flush()"


def python(code: str, stall_s: float = 20.0, *, asked: bool = False) -> Process:
    return Process([sys.executable, "-c", code], stall_s=stall_s, asked=asked)


def test_it_answers_what_it_is_asked() -> None:
    with python(ECHO, asked=True) as process:
        for word in (b"one\n", b"two\n"):
            process.write(word)
            assert process.read(4) == word.upper()
        assert not process.has_ended()


def test_where_it_is_not_asked_its_input_is_empty() -> None:
    with python("import sys; print(len(sys.stdin.read()), end='.')") as process:
        assert process.read(10) == b"0."
        assert process.finish() == (0, "")


def test_more_than_a_pipe_holds_goes_through_both_ways() -> None:
    data = os.urandom(1 << 20)
    with python("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read(1 << 20)[::-1])", asked=True) as process:
        process.write(data)
        assert process.read(1 << 20) == data[::-1]


def test_some_output_is_what_there_is() -> None:
    with python(ECHO, asked=True) as process:
        process.write(b"one\n")
        assert process.read_some(100) == b"ONE\n"
        process.stall_s = 0.2
        with pytest.raises(StalledError, match=r"^no output for 0\.2 s$"):
            process.read_some(100)
    with python("print(end='ab')") as process:
        assert (process.read_some(1), process.read_some(1), process.read_some(1)) == (b"a", b"b", b"")


def test_no_output_is_a_hang() -> None:
    with python("import time; time.sleep(60)", 0.2) as process, pytest.raises(StalledError, match=r"^no output for 0\.2 s$"):
        process.read(1)


def test_taking_no_input_is_a_hang() -> None:
    with (
        python("import time; time.sleep(60)", 0.2, asked=True) as process,
        pytest.raises(StalledError, match=r"^took no input for 0\.2 s$"),
    ):
        process.write(bytes(1 << 20))


def test_not_ending_is_a_hang() -> None:
    with python("import os, time; os.close(1); time.sleep(60)", 0.2) as process:
        assert process.read(1) == b""
        with pytest.raises(StalledError, match=r"^did not end within 0\.2 s$"):
            process.finish()


def test_how_it_ended_is_told_and_writing_to_it_is_no_error() -> None:
    code = f"import sys, os; sys.stderr.write('x' * {ERROR_BYTES} + 'last words'); os.kill(os.getpid(), 11)"
    with python(code, asked=True) as process:
        assert process.read(1) == b""
        process.write(b"too late\n")
        status, said = process.finish()
    assert (status, len(said), said[-10:]) == (-11, ERROR_BYTES, "last words")


def test_a_chatty_program_does_not_wait_for_being_heard() -> None:
    code = "import os\nfor _ in range(1000):\n    try: os.write(2, b'e' * 1000)\n    except BlockingIOError: pass\nprint('done', end='')"
    with python(code) as process:
        assert process.read(4) == b"done"


def test_leaving_the_block_ends_it_and_closes_its_pipes() -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with python("import time; time.sleep(60)", asked=True) as process:
        pid = process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(pid, 0)
    assert before is None or len(os.listdir("/proc/self/fd")) == before


def test_a_program_that_is_not_there_leaves_no_pipe_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Process([str(tmp_path / "nowhere")], stall_s=1.0).start()
    assert before is None or len(os.listdir("/proc/self/fd")) == before
