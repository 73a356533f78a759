"""Programs of others, run as child processes: their lines as they come, and nothing left running behind us.

A child gets a process group of its own, which is ended whole when it takes too long, when we are interrupted or
terminated, or when whoever reads its lines stops. Environment variables are set for the child only.
"""

import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cardiosynth.core.errors import InputError

LAST_WORDS = 5
"""So many of a program's last lines are shown where it fails."""
GRACE_S = 10.0
"""How long a program may take to end after it was asked to."""
DRAIN_S = 0.5
"""How long the last lines of a program that has ended are waited for."""

WATCH_S = 0.5
"""So often a program looks whether whoever started it is still there."""


def program_lines(
    command: Sequence[str],
    environment: Mapping[str, str | None],
    timeout_s: float,
    log: Path | None = None,
    sign: str | None = None,
) -> Generator[str, None, None]:
    """Run a program and yield each line that it writes to standard output or error.

    Close the iterator (``contextlib.closing``) where it is not read to its end: that ends the program.

    Args:
        command: the program and its arguments.
        environment: variables to set, or with None to unset, for the program.
        timeout_s: how long it may run.
        log: file to which all its lines are appended.
        sign: a line that begins so is a message to us: it begins the time anew, and is no last word.

    Raises:
        InputError: the program cannot be started, takes too long, or ends with an exit code other than 0; with its
            last lines.
    """
    last: deque[str] = deque(maxlen=LAST_WORDS)
    with _process(command, environment) as process, (log or Path(os.devnull)).open("a") as file, _terminable():
        deadline = time.monotonic() + timeout_s
        for line in _lines(process):
            if line is not None:
                file.write(line + "\n")
                if sign is not None and line.startswith(sign):
                    deadline = time.monotonic() + timeout_s
                elif line.strip():
                    last.append(line)
                yield line
            if time.monotonic() > deadline:
                raise InputError(_ending(command, f"took longer than {timeout_s:g} s", last, log))
        if process.wait() != 0:
            raise InputError(_ending(command, f"ended with exit code {process.returncode}", last, log))


def last_line(command: Sequence[str], environment: Mapping[str, str | None], timeout_s: float) -> str:
    """Run a program that answers with one line, and return it.

    Raises:
        InputError: as `program_lines`.
    """
    lines = [line for line in program_lines(command, environment, timeout_s) if line.strip()]
    return lines[-1].strip() if lines else ""


def end_with_parent() -> None:
    """In a program that `program_lines` started: end its whole group once whoever started it is gone, even if killed.

    Otherwise the same call, given again, would find the old program still at work on the same files.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _ending(command: Sequence[str], how: str, last: deque[str], log: Path | None) -> str:
    words = " / ".join(line.strip() for line in last) or "it said nothing"
    rest = f" (all of them in {log})" if log else ""
    return f"{Path(command[0]).name} {how}; its last words{rest}: {words}; mend what they say."


@contextmanager
def _process(command: Sequence[str], environment: Mapping[str, str | None]) -> Iterator["subprocess.Popen[str]"]:
    """Start a program in a process group of its own, and end the whole group in the end."""
    merged = {**os.environ, **environment}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={name: value for name, value in merged.items() if value is not None},
        )
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started ({error.strerror}); check its path.") from error
    try:
        yield process
    finally:
        _end_group(process)
        assert process.stdout is not None
        process.stdout.close()


def _end_group(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(process: "subprocess.Popen[str]") -> Iterator[str | None]:
    """Yield the program's lines, None when there has been none for a moment; ends once the program has."""
    assert process.stdout is not None
    heard: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, heard), daemon=True)
    reader.start()
    while True:
        try:
            line = heard.get(timeout=0.2)
        except queue.Empty:
            if process.poll() is None:
                yield None
                continue
            # A grandchild may hold the pipe open after the program's end, so its end is not waited for long.
            reader.join(DRAIN_S)
            while not heard.empty() and (line := heard.get()) is not None:
                yield line.rstrip("\n")
            return
        else:
            if line is None:
                return
            yield line.rstrip("\n")


def _read(stream: Iterable[str], heard: "queue.Queue[str | None]") -> None:
    with suppress(ValueError):  # closed while we wait for a line
        for line in stream:
            heard.put(line)
    heard.put(None)


@contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, so that the program is ended before we are. Only the main thread hears signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
