"""Compiled programs, kept in the user's cache folder from one process to the next."""

import argparse
import hashlib
import os
import pathlib
import platform
import sys
import tempfile
from typing import Any

MOST_BYTES = 4 * 2**30
"""What the folder may hold; beyond it the programs that were longest unused go."""
LEAST_SECONDS = 0.1
"""Programs that compile faster are not kept: a file costs time too."""


def add_cache(parser: Any) -> None:
    """Add the option of the commands that compile."""
    parser.add_argument(
        "--no-compile-cache",
        action="store_true",
        default=False,
        help="neither keep compiled programs nor use those that were kept (default: in the user's cache folder, or in "
        "JAX_COMPILATION_CACHE_DIR)",
    )


def keep_programs(options: argparse.Namespace) -> None:
    """Have jax keep compiled programs in `cache_folder()`, unless `options` or jax's own settings say otherwise.

    A folder that cannot be written to is told, and all goes on without.
    """
    import jax

    if getattr(options, "no_compile_cache", False):
        jax.config.update("jax_enable_compilation_cache", False)
        return
    chosen = jax.config.jax_compilation_cache_dir is not None  # type: ignore[attr-defined]
    if chosen or not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        print(f"tljax: compiled programs are not kept: {folder}: {error.strerror or error}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)


def cache_folder() -> pathlib.Path:
    """Where compiled programs are kept: a folder for each kind of processor, as homes are shared between machines.

    >>> cache_folder().parent.name
    'xla'
    """
    return _user_cache() / "tljax" / "xla" / _processor()


def _user_cache() -> pathlib.Path:
    if os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(os.environ["XDG_CACHE_HOME"])
    if sys.platform == "win32":
        return pathlib.Path(os.environ.get("LOCALAPPDATA") or pathlib.Path.home() / "AppData" / "Local")
    return pathlib.Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _processor() -> str:
    """The architecture, and a digest of the instructions that a program for it may use: jax does not compare them."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    known = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return f"{platform.machine() or 'unknown'}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"
