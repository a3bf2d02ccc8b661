"""Checkpoints of a training run: atomic, asynchronous, the newest few kept, each proved whole when it is
read back.

Orbax writes a checkpoint beside its final place and renames it, so a kill at any moment leaves only
complete ones. What it cannot see is a file damaged later; so a checksum of every leaf travels with the
checkpoint.  It is computed on the device in integers, hence the same whatever the sharding.
"""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.types import TljaxError


class RunError(TljaxError):
    """A run folder cannot be used as asked."""


@jax.jit
def checksum(tree: Any) -> jax.Array:
    """A `uint32` for each leaf, `[L]`: the sum of its words times odd, position-dependent weights, modulo
    2^32.

    Any single changed bit changes the sum, since odd weights are invertible.

    >>> import jax.numpy as jnp
    >>> bool(checksum(jnp.zeros(3))[0] == checksum(jnp.zeros(3).at[1].set(1e-45))[0])
    False
    """
    sums = [_leaf_checksum(jnp.asarray(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(sums) if sums else jnp.zeros(0, jnp.uint32)


def _leaf_checksum(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[leaf.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).reshape(-1)
    weights = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(0x9E3779B2) | jnp.uint32(1)
    return jnp.sum(words * weights, dtype=jnp.uint32)


class RunCheckpoints:
    """The checkpoints of one run in `folder`.

    `config` describes the run in plain JSON values. A folder that was written with another configuration is
    refused with the differences listed, so that two runs never mix.
    """

    def __init__(self, folder: str | pathlib.Path, config: Mapping[str, Any], *, keep: int = 2):
        import orbax.checkpoint as ocp

        self.folder = pathlib.Path(folder).absolute()
        self._config = json.loads(json.dumps(config))
        make_folder(self.folder)
        self._check_config()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._ocp, self._manager = ocp, ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, tree: Any, notes: Mapping[str, Any]) -> None:
        """Start saving `tree` and the JSON values `notes` as `step`; returns once the arrays may be
        donated."""
        ocp = self._ocp
        meta = {"config": self._config, "notes": dict(notes), "checksum": np.asarray(checksum(tree)).tolist()}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(_stored(tree)), meta=ocp.args.JsonSave(meta))
        self._guard(lambda: self._manager.save(step, args=arguments, force=True), f"checkpoint {step}")

    def newest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Block until every started save is on disk; raises if one failed."""
        self._guard(self._manager.wait_until_finished, "a checkpoint")

    def restore(self, like: Any, warn: Callable[[str], None]) -> tuple[int, Any, dict[str, Any]] | None:
        """`(step, tree, notes)` of the newest whole checkpoint, or None. Damaged ones are told to `warn`
        and set aside."""
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return (step, *self._read(step, like))
            except Exception as error:  # any damage: orbax raises many kinds of error
                reason = str(error).strip().splitlines() or [type(error).__name__]
                warn(f"checkpoint {step} in {self.folder} is damaged ({reason[0][:200]}); using the one before it")
                (self.folder / str(step)).rename(self.folder / f"damaged-{step}-{time.time_ns()}")
                self._manager.reload()
        return None

    def close(self) -> None:
        """Wait, and release the writer's threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        ocp = self._ocp
        abstract = jax.tree.map(_abstract, _stored(like))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=arguments)
        meta = found["meta"]
        leaves, structure = jax.tree.flatten(like)
        tree = structure.unflatten([found["state"].get(str(i), leaf) for i, leaf in enumerate(leaves)])
        if np.asarray(checksum(tree)).tolist() != meta["checksum"]:
            raise RunError("its arrays do not have the checksum they were saved with")
        return tree, meta["notes"]

    def _check_config(self) -> None:
        file = self.folder / "run.json"
        if not file.exists():
            write_atomically(file, json.dumps(self._config, indent=1, sort_keys=True))
            return
        try:
            earlier = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{file} cannot be read ({error}); it should hold the configuration of the run") from error
        lines = differences(earlier, self._config)
        if lines:
            listed = "\n  ".join(lines)
            raise RunError(
                f"{self.folder} holds a run of another configuration:\n  {listed}\n"
                "Choose another run folder, or go back to the earlier settings to continue that run."
            )

    def _guard(self, write: Callable[[], Any], what: str) -> None:
        try:
            write()
        except Exception as error:  # orbax passes on many kinds of I/O error, some of them wrapped
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise RunError(
                f"{what} could not be written to {self.folder}: {reason[0][:300]}. Earlier checkpoints are intact; "
                "free some space or check the permissions, then run the same command again."
            ) from error


def differences(earlier: Any, now: Any, name: str = "") -> list[str]:
    """Readable lines for every place where two JSON values differ.

    >>> differences({"lr": 0.1, "model": {"width": 8}}, {"lr": 0.1, "model": {"width": 16}})
    ['model.width: was 8, now 16']
    """
    if isinstance(earlier, dict) and isinstance(now, dict):
        keys = sorted(earlier.keys() | now.keys())
        inner = [differences(earlier.get(k), now.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [line for lines in inner for line in lines]
    return [] if earlier == now else [f"{name}: was {json.dumps(earlier)}, now {json.dumps(now)}"]


def make_folder(folder: pathlib.Path) -> None:
    """Make `folder`, or raise `RunError` where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".tljax-write-test"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be written to: {error.strerror or error}") from error


def write_atomically(file: pathlib.Path, text: str) -> None:
    """Write `text` so that `file` holds either all of it or what it held before; raises `RunError`."""
    part = file.with_name(file.name + ".part")
    try:
        part.write_text(text)
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"{file} could not be written: {error.strerror or error}") from error


def _stored(tree: Any) -> dict[str, Any]:
    """The leaves by number, without the empty ones, which orbax refuses."""
    return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(tree)) if np.size(leaf)}


def _abstract(leaf: Any) -> Any:
    sharding = getattr(leaf, "sharding", None)
    return jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf), sharding=sharding)
