"""Checkpoints of a training run: atomic, asynchronous, the newest few kept, each proved whole when it is read back.

Orbax writes a checkpoint beside its final place and renames it, so a kill at any moment leaves only complete ones. What
it cannot see is a file damaged later; so a checksum of every leaf travels with the checkpoint.

Where several processes make a run, all call the same functions here, on a folder that all can see: each writes its own
part of the arrays, and what is done once is done by the first.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tljax.checkpoints.atomic import atomic_file
from tljax.checkpoints.checksum import checksum, storable
from tljax.checkpoints.described import described_in, differences
from tljax.checkpoints.errors import CheckpointError, first_line
from tljax.checkpoints.leaves import abstract, first_difference, rebuilt, specs, stored
from tljax.checkpoints.lock import FolderLock
from tljax.checkpoints.quiet import quiet_orbax
from tljax.processes import from_first, gathered, together
from tljax.tree import nbytes

_METADATA_BYTES = 100_000
Found = tuple[int, Any, dict[str, Any]]


class RunError(CheckpointError):
    """A run folder cannot be used as asked."""


class _DamageError(Exception):
    """A checkpoint is not what was saved."""


class RunCheckpoints:
    """The checkpoints of one run in `folder`; a context manager, which releases the folder and the writer's threads.

    `config` describes the run in plain JSON values. A folder with checkpoints of another configuration is refused with
    the differences listed, so that two runs never mix; so is a folder that another process is using.

    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> tree = {"w": jnp.arange(3.0)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunCheckpoints(folder, {"rate": 0.1}) as checkpoints:
    ...         checkpoints.save(5, tree, {"note": 1})
    ...     with RunCheckpoints(folder, {"rate": 0.1}) as checkpoints:
    ...         checkpoints.restore(tree)
    (5, {'w': Array([0., 1., 2.], dtype=float32)}, {'note': 1})
    """

    def __init__(self, folder: str | pathlib.Path, config: Mapping[str, Any], *, keep: int = 2):
        if keep != int(keep) or keep < 1:
            raise RunError(f"keep is how many checkpoints stay on disk, 1 or more; found {keep!r}")
        self.folder = pathlib.Path(folder).absolute()
        self._config = _plain(config)
        from_first(lambda: make_folder(self.folder))
        self._lock = FolderLock(self.folder)
        from_first(self._take)
        try:
            from_first(self._check_config)
            self._open(keep)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.close()
        except RunError:
            if error is None:
                raise  # else the first error is the one to tell

    def save(self, step: int, tree: Any, notes: Mapping[str, Any]) -> None:
        """Start saving `tree` and the JSON values `notes` as `step`; returns once the arrays may be donated.

        Raises `RunError` when this or the save before fails: no space, no permission.
        """
        ocp = self._ocp
        from_first(lambda: self._check_space(tree, step))
        meta = {"config": self._config, "notes": _plain(notes), "leaves": specs(tree), "sums": checksum(tree).tolist()}
        meta["digest"] = _digest(meta)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(stored(tree)), meta=ocp.args.JsonSave(meta))
        self._guard(lambda: self._manager.save(step, args=arguments, force=True), f"checkpoint {step}")

    def newest(self) -> int | None:
        """The step of the newest checkpoint, one being written included; or None."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Block until every started save is on disk; raises `RunError` if one failed."""
        self._guard(self._manager.wait_until_finished, "a checkpoint")

    def restore(self, like: Any, warn: Callable[[str], None] = warnings.warn) -> Found | None:
        """`(step, tree, notes)` of the newest whole checkpoint, in the shapes and places of `like`; None if there is
        no checkpoint.

        Damaged ones are told to `warn` and set aside. Raises `RunError` when all of them are damaged, or when they
        hold a tree of another structure.
        """
        damaged: list[tuple[int, str]] = []
        for step in from_first(lambda: sorted(self._manager.all_steps(), reverse=True)):
            found, reason = together(functools.partial(self._attempt, step, like))
            if np.any(gathered([reason is not None])):
                damaged.append((step, reason or "another process could not read it"))
                continue
            from_first(functools.partial(self._set_aside, damaged, step, warn))
            if damaged:
                self._manager.reload()
            from_first(self._write_config)  # it may have been damaged
            return (step, *found)
        if damaged:
            listed = "".join(f"\n  {step}: {reason}" for step, reason in damaged)
            raise RunError(
                f"every checkpoint in {self.folder} is damaged:{listed}\n"
                "To start this run again from its beginning, move that folder away."
            )
        return None

    def close(self) -> None:
        """Wait for the last save, and release the folder and the writer's threads; raises `RunError` if it failed."""
        try:
            self.wait()
        finally:
            self._close_manager()
            self._lock.release()

    def _close_manager(self) -> None:
        for _ in range(2):  # the first time it may stop at an error that `wait` has told already
            with contextlib.suppress(Exception):
                self._manager.close()

    def _take(self) -> None:
        if not self._lock.acquire():
            raise RunError(f"another process is training in {self.folder}; wait for it, or choose another run folder")

    def _open(self, keep: int) -> None:
        import orbax.checkpoint as ocp

        quiet_orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, cleanup_tmp_directories=True
        )
        self._ocp = ocp
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except Exception as error:
            raise RunError(f"{self.folder} cannot be opened as a folder of checkpoints: {first_line(error)}") from error

    def _attempt(self, step: int, like: Any) -> tuple[Any, str | None]:
        """The tree and the notes of a checkpoint; or None, and what is damaged."""
        try:
            return self._read(step, like), None
        except (RunError, MemoryError):
            raise
        except Exception as error:  # orbax meets damage with many kinds of error
            return None, first_line(error, 200)

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        ocp = self._ocp
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        if not isinstance(meta, dict) or meta.pop("digest", None) != _digest(meta):
            raise _DamageError("its description is not the one that was saved")
        self._refuse(differences(meta["config"], self._config))
        if meta["leaves"] != specs(like):
            raise RunError(
                f"checkpoint {step} in {self.folder} holds {len(meta['leaves'])} arrays that are not those of this "
                f"run, which has {len(specs(like))}: {first_difference(meta['leaves'], specs(like))}. "
                "It was written by another version of the code; choose another run folder."
            )
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(jax.tree.map(abstract, stored(like))))
        tree = rebuilt(like, self._manager.restore(step, args=arguments)["state"])
        if checksum(tree).tolist() != meta["sums"]:
            raise _DamageError("its arrays do not have the checksums they were saved with")
        return tree, meta["notes"]

    def _set_aside(self, damaged: list[tuple[int, str]], used: int, warn: Callable[[str], None]) -> None:
        for step, reason in damaged:
            place = self.folder / f"damaged-{step}-{time.time_ns()}"
            try:
                (self.folder / str(step)).rename(place)
            except OSError as error:
                raise RunError(
                    f"checkpoint {step} in {self.folder} is damaged and cannot be moved: {error.strerror}"
                ) from error
            warn(f"checkpoint {step} is damaged ({reason}); it is now {place}, and checkpoint {used} is used")

    def _check_config(self) -> None:
        """Refuse a folder of another run; one without checkpoints has nothing to lose, and becomes this run's."""
        if not any(entry.name.isdigit() for entry in self.folder.iterdir()):
            return self._write_config()
        earlier = described_in(self.folder)
        if earlier is None:
            return None  # lost or damaged; every checkpoint has its own copy, which `restore` compares
        return self._refuse(differences(earlier, self._config))

    def _write_config(self) -> None:
        write_atomically(self.folder / "run.json", json.dumps(self._config, indent=1, sort_keys=True) + "\n")

    def _refuse(self, lines: list[str]) -> None:
        if lines:
            listed = "\n  ".join(lines)
            raise RunError(
                f"{self.folder} holds a run of another configuration:\n  {listed}\n"
                "Choose another run folder, or go back to the earlier settings to continue that run."
            )

    def _check_space(self, tree: Any, step: int) -> None:
        """A full disk is better told before than by the writer."""
        needed = nbytes(jax.tree.map(storable, tree)) + _METADATA_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise RunError(
                f"checkpoint {step} needs {needed / 1e6:,.1f} MB in {self.folder}, which has {free / 1e6:,.1f} MB "
                "left. Earlier checkpoints are intact; free some space, then run the same command again."
            )

    def _guard(self, write: Callable[[], Any], what: str) -> None:
        try:
            write()
        except Exception as error:  # orbax passes on many kinds of I/O error, some of them wrapped
            raise RunError(
                f"{what} could not be written to {self.folder}: {_reason(error)}. Earlier checkpoints are intact; "
                "free some space or check the permissions, then run the same command again."
            ) from error


def make_folder(folder: pathlib.Path) -> None:
    """Make `folder`, or raise `RunError` where it cannot be written to.

    >>> make_folder(pathlib.Path("/dev/null/run"))
    Traceback (most recent call last):
    tljax.checkpoints.run.RunError: the run folder /dev/null/run cannot be written to: Not a directory
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise RunError(f"the run folder {folder} is a file; name a folder, new or of the run to continue")
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".tljax-write-test"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be written to: {error.strerror or error}") from error


def write_atomically(file: pathlib.Path, text: str) -> None:
    """Write `text` so that `file` holds either all of it or what it held before; raises `CheckpointError`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(pathlib.Path(folder) / "a.txt", "whole")
    ...     (pathlib.Path(folder) / "a.txt").read_text()
    'whole'
    """
    with atomic_file(file) as out:
        out.write(text.encode())


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(values)))
    except (TypeError, ValueError) as error:
        raise RunError(f"what describes a run must be JSON values (numbers, text, lists, dicts): {error}") from error


def _reason(error: BaseException) -> str:
    """What the system said, out of the many words that libraries wrap it in."""
    code = re.search(r"os_error_code='?(\d+)", str(error))
    number = int(code.group(1)) if code else getattr(error, "errno", None)
    return os.strerror(number) if number else first_line(error)


def _digest(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
