"""A polite stop: SIGTERM and SIGINT let the step finish and be saved."""

import signal
import threading
from types import FrameType
from typing import Any

from cardiosynth.core.progress import say


class StopRequest:
    """Remembers that the process was asked to stop. Use as a context manager; inert outside the main thread.

    A second SIGINT (Ctrl-C twice) interrupts at once. A second SIGTERM does not: launchers send several. A signal that
    nobody acted on inside the block is sent again after it.

    Attributes:
        signal: number of the signal that came, 0 before.
    """

    def __init__(self):
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # What the caller ignores, as a shell does with Ctrl-C for its background jobs, stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not set from Python and cannot be set from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.signal and kind is None:
            signal.raise_signal(self.signal)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if number == self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def stopped(number: int, label: str, step: int, steps: int) -> SystemExit:
    """Return what ends the process: a clear message, and the exit code by which shells know signal ``number``."""
    message = f"{label}: stopped and saved at step {step} of {steps}; the same command goes on from there."
    say(message)
    end = SystemExit(message)
    end.code = 128 + number
    return end
