"""Running another program: an argument list, no shell, a time limit, and never left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType

ERROR_BYTES = 4000
# Exit statuses of a program that was ended from outside: for want of memory, or with all that its job or its terminal had started.
KILLED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


class StalledError(Exception):
    """The program gave nothing for longer than its limit."""


class Process:
    """A running program whose output is read as it comes. Leaving the `with` block, or `stop`, ends it, whatever it is doing."""

    def __init__(self, argv: Sequence[str], *, stall_s: float, asked: bool = False, inherits: Sequence[int] = ()) -> None:
        """asked: it reads what `write` gives it; else its input is empty. inherits: file descriptors that it has under the same number.

        stall_s may be changed at any time.
        """
        self.argv, self.stall_s = list(argv), stall_s
        self._asked, self._inherits = asked, tuple(inherits)

    def __enter__(self) -> Process:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> Process:
        read_end, write_end = os.pipe()
        self._errors = os.fdopen(read_end, "rb", buffering=0)
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)  # a chatty program must not block on a full pipe; what is over is lost
        given = subprocess.PIPE if self._asked else subprocess.DEVNULL
        try:
            self._child = subprocess.Popen(
                self.argv, stdin=given, stdout=subprocess.PIPE, stderr=write_end, bufsize=0, pass_fds=self._inherits
            )
        except BaseException:
            self._errors.close()
            raise
        finally:
            os.close(write_end)
        if self._child.stdin is not None:
            os.set_blocking(self._child.stdin.fileno(), False)
        self._owner = os.getpid()
        return self

    @property
    def pid(self) -> int:
        return self._child.pid

    def stop(self) -> None:
        """End it. In a process that was forked off, which has a copy of this, only the copy's pipes are closed."""
        if os.getpid() == self._owner:
            self._child.kill()
            self._child.wait()
        for end in (self._child.stdin, self._child.stdout, self._errors):
            if end is not None:
                end.close()

    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def write(self, data: bytes) -> None:
        """Raises StalledError where it does not take them. A program that has ended loses them, which `read` tells."""
        assert self._child.stdin is not None
        end, view = self._child.stdin.fileno(), memoryview(data)
        while view:
            if not _is_ready(end, select.POLLOUT, self.stall_s):
                raise StalledError(f"took no input for {self.stall_s:g} s")
            try:
                view = view[os.write(end, view) :]
            except BlockingIOError:
                continue  # there is room, but for less than what must be written at once
            except BrokenPipeError:
                return  # as said above

    def read_into(self, view: memoryview) -> int:
        """Fill the view. Returns how many bytes came before the output's end. Raises StalledError."""
        assert self._child.stdout is not None
        end, filled = self._child.stdout.fileno(), 0
        while filled < len(view):
            if not _is_ready(end, select.POLLIN, self.stall_s):
                raise StalledError(f"no output for {self.stall_s:g} s")
            got = os.readv(end, [view[filled:]])
            if got == 0:
                break
            filled += got
        return filled

    def read_some(self, size: int) -> bytes:
        """What there is, a byte at least and `size` at most; none at the output's end. Raises StalledError."""
        assert self._child.stdout is not None
        end = self._child.stdout.fileno()
        if not _is_ready(end, select.POLLIN, self.stall_s):
            raise StalledError(f"no output for {self.stall_s:g} s")
        return os.read(end, size)

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer at the output's end."""
        buffer = bytearray(size)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def said(self) -> str:
        """The last of what it said on standard error since this was asked for."""
        return (self._errors.read() or b"")[-ERROR_BYTES:].decode("utf-8", "replace").strip()

    def finish(self) -> tuple[int, str]:
        """Wait for the end: the exit status (negative: killed by that signal) and what it `said`."""
        try:
            status = self._child.wait(self.stall_s)
        except subprocess.TimeoutExpired as error:
            raise StalledError(f"did not end within {self.stall_s:g} s") from error
        return status, self.said()


def _is_ready(end: int, event: int, within_s: float) -> bool:
    poll = select.poll()  # not select.select, which takes no descriptor over 1023
    poll.register(end, event)
    return bool(poll.poll(within_s * 1000))
