"""What the processes of one run tell each other whenever the host looks at it, so that all go on, or stop, alike."""

from typing import NamedTuple

from tljax.processes import gathered, raise_all, several


class Notice(NamedTuple):
    """What a process knows after a launch of steps, or would do by its own clock."""

    signal: int
    """The signal that asked it to end; 0: none."""
    chunk: int
    """How many steps to launch next."""
    save: bool
    """Whether to save now."""


class Peers:
    """The processes of a run, seen from one of them.

    An error of one process is kept until all look at the run together: until then it takes part in what they compute,
    for they would wait for it.

    >>> Peers().agree(Notice(signal=0, chunk=8, save=False))
    Notice(signal=0, chunk=8, save=False)
    """

    def __init__(self) -> None:
        self._error: Exception | None = None

    def keep(self, error: Exception) -> None:
        """Note what failed here; raise it at once where there is no other process."""
        if not several():
            raise error
        self._error = self._error or error

    def agree(self, own: Notice) -> Notice:
        """What all do: end if one was asked to, and else what the first would. A collective.

        Raises:
          Exception: what was kept here. ProcessError: what was kept in another process.
        """
        if not several():
            return own
        rows = gathered([own.signal, own.chunk, own.save, self._error is not None])
        raise_all(rows[:, 3], self._error)
        return Notice(int(rows[:, 0].max()), int(rows[0, 1]), bool(rows[0, 2]))
