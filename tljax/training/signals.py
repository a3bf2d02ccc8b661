"""Being asked to end: what a run notes, so that it can save first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM), and the run has been saved. Exits with 143, as shells expect.

    >>> str(Terminated("terminated at step 5")), Terminated("").code
    ('terminated at step 5', 143)
    """

    def __init__(self, message: str):
        super().__init__(143)
        self.message = message

    def __str__(self) -> str:
        return self.message


@contextmanager
def noted_signals(*, catch: bool = True) -> Iterator[list[int]]:
    """The SIGTERMs and SIGINTs received, in a list that fills while the block runs; a second one acts at once.

    Only the main thread can catch signals; elsewhere, or without `catch`, the list stays empty and they act as ever.

    >>> with noted_signals() as received:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     print([signal.Signals(number).name for number in received])
    ['SIGTERM']
    """
    received: list[int] = []
    if not catch or threading.current_thread() is not threading.main_thread():
        yield received
        return
    earlier = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for s, handler in earlier.items():
            signal.signal(s, signal.SIG_DFL if handler is None else handler)  # None: not set from Python

    def note(number: int, frame: Any) -> None:
        received.append(number)
        restore()

    for s in earlier:
        signal.signal(s, note)
    try:
        yield received
    finally:
        restore()
