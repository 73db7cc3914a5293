"""Running another program: an argument list, no shell, no input, a time limit, and never left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType

ERROR_BYTES = 4000
PIPE_BYTES = 1 << 20  # a picture of 1080p is 6 MB


class StalledError(Exception):
    """The program gave nothing for longer than its limit, and was killed."""


class Process:
    """A running program whose output is read as it comes. Leaving the `with` block ends it, whatever it is doing."""

    def __init__(self, argv: Sequence[str], *, stall_s: float, given: bytes = b"") -> None:
        """given: what it reads from standard input, which is otherwise empty."""
        self.argv, self.stall_s, self.given = list(argv), stall_s, given

    def __enter__(self) -> Process:
        read_end, self._write_errors = os.pipe()
        self._errors = os.fdopen(read_end, "rb", buffering=0)
        os.set_blocking(read_end, False)
        os.set_blocking(self._write_errors, False)  # a chatty program must not block on a full pipe; what is over is lost
        with tempfile.TemporaryFile() as given:  # a file, not a pipe: writing it cannot wait for the program
            given.write(self.given)
            given.seek(0)
            self._child = subprocess.Popen(self.argv, stdin=given, stdout=subprocess.PIPE, stderr=self._write_errors)
        os.close(self._write_errors)
        assert self._child.stdout is not None
        self._out = self._child.stdout.fileno()
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux; elsewhere the pipe only takes more turns
            with contextlib.suppress(OSError):  # the kernel may allow this user less
                fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._child.kill()
        self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._errors.close()

    def read_into(self, view: memoryview) -> int:
        """Fill the view. Returns how many bytes came before the output's end. Raises StalledError."""
        filled = 0
        while filled < len(view):
            if not select.select([self._out], [], [], self.stall_s)[0]:
                raise StalledError(f"no output for {self.stall_s:g} s")
            got = os.readv(self._out, [view[filled:]])
            if got == 0:
                break
            filled += got
        return filled

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer at the output's end."""
        buffer = bytearray(size)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def finish(self) -> tuple[int, str]:
        """Wait for the end: the exit status (negative: killed by that signal) and the last of what it said on standard error."""
        try:
            status = self._child.wait(self.stall_s)
        except subprocess.TimeoutExpired as error:
            raise StalledError(f"did not end within {self.stall_s:g} s") from error
        said = self._errors.read() or b""
        return status, said[-ERROR_BYTES:].decode("utf-8", "replace").strip()
