"""A command that several processes run together: joining them, before anything else is done."""

import argparse
import contextlib
import io
from collections.abc import Iterator

from tljax.commands.options import PROCESSES


@contextlib.contextmanager
def joined(options: argparse.Namespace) -> Iterator[None]:
    """Within the block this process is one of those that the command line names; all but the first are silent.

    Raises `ProcessError` for options that do not go together, or where the others do not come.

    >>> with joined(argparse.Namespace(num_processes=2)):
    ...     pass
    Traceback (most recent call last):
    tljax.processes.ProcessError: --coordinator, --num-processes and --process-id go together; ...
    """
    given = {name: getattr(options, name) for name in PROCESSES if hasattr(options, name)}
    if not given:
        yield
        return
    from tljax.processes import ProcessError, is_first, join

    said = [f"--{name.replace('_', '-')}" for name in given]
    if "distributed" in given and len(given) > 1:
        raise ProcessError(f"--distributed asks the cluster for what {said[0]} says; give one or the other")
    if "distributed" not in given and len(given) < 3:
        raise ProcessError(
            f"--coordinator, --num-processes and --process-id go together; found only {' and '.join(said)}"
        )
    join(given.get("coordinator"), given.get("num_processes"), given.get("process_id"))
    if is_first():
        yield
        return
    options.quiet = True
    with contextlib.redirect_stdout(io.StringIO()):
        yield
