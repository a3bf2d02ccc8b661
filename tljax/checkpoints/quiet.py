"""Orbax's threads tell of a failed save or a damaged file in their own words too; we tell of it once, as an error."""

import functools
import logging
import sys
from typing import Any


@functools.cache
def quiet_orbax() -> None:
    """From now on keep to ourselves what orbax's threads say of errors that reach us as exceptions.

    Its log below INFO is left alone for those who turned it on. Only two kinds of complaint of Python's own are
    withheld: of coroutines of orbax that were given up, and of an event loop that had gone when a write ended.

    >>> quiet_orbax(), quiet_orbax()  # once is enough
    (None, None)
    """
    logging.getLogger("absl").addFilter(_keeps_record)
    earlier = sys.unraisablehook

    def hook(arguments: Any) -> None:
        if not _is_leftover(arguments):
            earlier(arguments)

    sys.unraisablehook = hook


def _keeps_record(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname or logging.getLogger("absl").isEnabledFor(logging.INFO)


def _is_leftover(arguments: Any) -> bool:
    code = getattr(arguments.object, "cr_code", None)
    closed = arguments.exc_type is RuntimeError and str(arguments.exc_value) == "Event loop is closed"
    return closed or "orbax" in getattr(code, "co_filename", "")
