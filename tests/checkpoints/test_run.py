"""Run checkpoints: whole or refused, never half."""

import contextlib
import gc
import json
import pathlib
import resource
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.checkpoints.run import RunCheckpoints, RunError, differences, make_folder
from tljax.types import TljaxError

CONFIG = {"rate": 0.1, "model": {"width": 8, "name": "mlp"}}


def tree(step):
    """Every kind of leaf a run may carry."""
    return {
        "w": jnp.full((30, 40), step, jnp.float32), "half": jnp.ones(3, jnp.bfloat16) * step, "flag": jnp.array([True]),
        "none": None, "empty": jnp.zeros((0, 3)), "step": jnp.int32(step), "key": jax.random.key(step),
        "keys": jax.random.split(jax.random.key(step), 3), "tiny": jnp.int8(step), "pair": (jnp.uint32(step), {}),
    }  # fmt: skip


def bits(value):
    leaves, structure = jax.tree.flatten(value)
    plain = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return structure, [(np.asarray(x).dtype, np.shape(x), np.asarray(x).tobytes()) for x in plain]


def saved(folder, steps=(1, 2, 3), **options):
    with RunCheckpoints(folder, CONFIG, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, tree(step), {"rows": step})
    return folder


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """No thread, and nothing that the garbage collector would complain of."""
    threads = threading.active_count()
    yield
    gc.collect()
    for _ in range(100):  # after an error they need a moment
        if threading.active_count() <= threads:
            return
        time.sleep(0.05)
    raise AssertionError(threading.enumerate())


def restored(folder, like=None, config=CONFIG):
    """What comes back, and what was told."""
    told = []
    with RunCheckpoints(folder, config) as checkpoints:
        return checkpoints.restore(tree(0) if like is None else like, told.append), told


def step_folders(folder):
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    (step, found, notes), told = restored(saved(tmp_path))
    assert (step, notes, told) == (3, {"rows": 3}, [])
    assert bits(found) == bits(tree(3))


def test_the_newest_few_are_kept(tmp_path):
    assert step_folders(saved(tmp_path / "two", steps=range(1, 6))) == [4, 5]
    assert step_folders(saved(tmp_path / "three", steps=range(1, 6), keep=3)) == [3, 4, 5]
    assert step_folders(saved(tmp_path / "one", steps=range(1, 6), keep=1)) == [5]
    with pytest.raises(RunError, match="keep is how many"):
        RunCheckpoints(tmp_path / "none", CONFIG, keep=0)


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
    assert restored(tmp_path / "new" / "deep") == (None, [])


def test_arrays_may_be_donated_as_soon_as_save_returns(tmp_path):
    bump = jax.jit(lambda t: jax.tree.map(lambda a: a + 1, t), donate_argnums=0)
    value = {"w": jnp.zeros((600, 700)), "b": jnp.zeros(3)}
    with RunCheckpoints(tmp_path, CONFIG, keep=5) as checkpoints:
        for step in range(5):
            checkpoints.save(step, value, {})
            for _ in range(5):
                value = bump(value)
    for step in (4, 3, 2, 1, 0):
        (found, at, _), told = restored(tmp_path, value)
        assert (found, told) == (step, [])  # its checksum is that of the moment of saving
        np.testing.assert_array_equal(at["w"], np.full((600, 700), 5.0 * step))
        shutil.rmtree(tmp_path / str(step))


def test_the_same_step_can_be_saved_again_after_a_restart(tmp_path):
    saved(tmp_path, (1, 2))
    with RunCheckpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.restore(tree(0))[0] == 2
        checkpoints.save(3, tree(30), {})
        assert checkpoints.newest() == 3
    assert bits(restored(tmp_path)[0][1]) == bits(tree(30))


# --- damage ----------------------------------------------------------------------------------------------------------


def largest(folder, below="state/d"):
    return max((f for f in (folder / below).rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(folder):
    file = largest(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(folder):
    largest(folder).write_bytes(b"")


def flip(folder):
    file = largest(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def lose_a_file(folder):
    largest(folder).unlink()


def lose_all(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def change_the_notes(folder):
    file = largest(folder, "meta")
    file.write_text(file.read_text().replace('"rows": 3', '"rows": 4'))


DAMAGES = [truncate, empty, flip, lose_a_file, lose_all, change_the_notes]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_told_and_the_one_before_is_used(tmp_path, damage):
    damage(saved(tmp_path) / "3")
    (step, found, notes), told = restored(tmp_path)
    assert (step, notes) == (2, {"rows": 2})
    assert bits(found) == bits(tree(2))
    (aside,) = tmp_path.glob("damaged-3-*")
    assert len(told) == 1
    assert "checkpoint 3 is damaged (" in told[0]
    assert f"it is now {aside}, and checkpoint 2 is used" in told[0]
    with RunCheckpoints(tmp_path, CONFIG) as checkpoints:  # the run comes to step 3 again
        assert checkpoints.restore(tree(0))[0] == 2
        checkpoints.save(3, tree(3), {"rows": 3})
    assert restored(tmp_path)[0][0] == 3


def test_a_swapped_array_is_damage(tmp_path):
    saved(tmp_path)
    saved(tmp_path / "other", (3,))
    shutil.rmtree(tmp_path / "3" / "state")
    with RunCheckpoints(tmp_path / "other2", CONFIG) as checkpoints:
        checkpoints.save(3, tree(9), {"rows": 3})
    shutil.copytree(tmp_path / "other2" / "3" / "state", tmp_path / "3" / "state")
    (step, _, _), told = restored(tmp_path)
    assert step == 2
    assert "checksums" in told[0]


def test_where_all_are_damaged_nothing_is_touched_and_nothing_starts_over(tmp_path):
    saved(tmp_path)
    truncate(tmp_path / "2")
    flip(tmp_path / "3")
    for _ in range(2):  # the second attempt finds what the first did
        with pytest.raises(RunError, match=r"every checkpoint in .* is damaged:\n  3: .*\n  2: ") as error:
            restored(tmp_path)
        assert "move that folder away" in str(error.value)
        assert step_folders(tmp_path) == [2, 3]


@pytest.mark.slow
def test_no_damage_to_any_file_goes_unnoticed(tmp_path):
    saved(tmp_path / "whole")
    ways = {
        "empty": lambda b: b"", "half": lambda b: b[: len(b) // 2], "garbage": lambda b: b"\x00garbage" * 9,
        "flip": lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1 :] if b else b"x",
    }  # fmt: skip
    for file in sorted(f for f in (tmp_path / "whole" / "3").rglob("*") if f.is_file()):
        for way, change in ways.items():
            folder = tmp_path / "copy"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(tmp_path / "whole", folder)
            target = folder / file.relative_to(tmp_path / "whole")
            target.write_bytes(change(target.read_bytes()))
            (step, found, notes), told = restored(folder)
            assert (step, len(told)) in ((3, 0), (2, 1)), (file, way)
            assert bits(found) == bits(tree(step)), (file, way)
            assert notes == {"rows": step}, (file, way)


def test_what_a_kill_leaves_behind_is_cleaned_away(tmp_path):
    saved(tmp_path)
    shutil.copytree(tmp_path / "3", tmp_path / "4.orbax-checkpoint-tmp-123")
    (tmp_path / "4.orbax-checkpoint-tmp-123" / "commit_success.txt").unlink()
    with RunCheckpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.restore(tree(0))[0] == 3
        checkpoints.save(4, tree(4), {"rows": 4})
    assert restored(tmp_path)[0][0] == 4
    assert not list(tmp_path.glob("*tmp*"))


def test_a_half_deleted_old_checkpoint_does_no_harm(tmp_path):
    saved(tmp_path)
    shutil.rmtree(tmp_path / "2" / "meta")
    assert restored(tmp_path)[0][0] == 3
    with RunCheckpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(4, tree(4), {})
    assert step_folders(tmp_path) == [3, 4]


# --- another run -----------------------------------------------------------------------------------------------------


def test_another_configuration_is_refused_with_the_differences(tmp_path):
    saved(tmp_path)
    other = {"rate": 0.2, "model": {"width": 8}, "seed": 1}
    with pytest.raises(RunError) as error:
        restored(tmp_path, config=other)
    message = str(error.value)
    assert f"{tmp_path} holds a run of another configuration" in message
    for line in ('model.name: was "mlp", now null', "rate: was 0.1, now 0.2", "seed: was null, now 1"):
        assert line in message
    assert restored(tmp_path)[0][0] == 3


def test_a_folder_without_checkpoints_has_nothing_to_lose(tmp_path):
    assert restored(tmp_path) == (None, [])
    assert restored(tmp_path, config={"other": 1}) == (None, [])
    assert json.loads((tmp_path / "run.json").read_text()) == {"other": 1}


@pytest.mark.parametrize("content", [None, "", '{"rate": 0.', "\udcff"])
def test_a_lost_description_is_found_in_the_checkpoints(tmp_path, content):
    file = saved(tmp_path) / "run.json"
    file.unlink()
    if content is not None:
        file.write_text(content, errors="surrogateescape")
    with pytest.raises(RunError, match=r"rate: was 0.1, now 0.2"):
        restored(tmp_path, config=CONFIG | {"rate": 0.2})
    assert restored(tmp_path)[0][0] == 3
    assert json.loads(file.read_text()) == CONFIG


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": jnp.zeros((30, 40))}, "holds 9 arrays .* which has 1"),
        (tree(0) | {"w": jnp.zeros((30, 41))}, r"number 8 was float32\[30, 40\] and is float32\[30, 41\]"),
        (tree(0) | {"z": jnp.zeros(2)}, "which has 10: the first 9 are alike"),
    ],
)
def test_another_structure_is_refused_and_no_damage(tmp_path, like, message):
    saved(tmp_path)
    with pytest.raises(RunError, match=message):
        restored(tmp_path, like)
    assert step_folders(tmp_path) == [2, 3]
    assert restored(tmp_path)[0][0] == 3


def test_one_process_at_a_time(tmp_path):
    with RunCheckpoints(tmp_path, CONFIG), pytest.raises(RunError, match="another process is training in"):
        RunCheckpoints(tmp_path, CONFIG)
    RunCheckpoints(tmp_path, CONFIG).close()
    with pytest.raises(RunError, match="another configuration"):
        restored(saved(tmp_path), config={})
    restored(tmp_path)  # the refusal released the folder


def test_the_configuration_must_be_json(tmp_path):
    with pytest.raises(RunError, match="must be JSON values"):
        RunCheckpoints(tmp_path, {"rate": jnp.float32(1)})


def test_differences():
    assert differences({"a": [1, 2], "b": {"c": None}}, {"a": [1, 3], "b": {"c": 0}}) == [
        "a: was [1, 2], now [1, 3]",
        "b.c: was null, now 0",
    ]
    assert differences({"a": {"b": 1}}, {"a": 2}) == ['a: was {"b": 1}, now 2']
    assert differences(CONFIG, json.loads(json.dumps(CONFIG))) == []


# --- no room, no right -----------------------------------------------------------------------------------------------


def test_a_file_where_the_folder_should_be(tmp_path):
    file = tmp_path / "run"
    file.write_text("precious")
    for folder in (file, file / "deeper"):
        with pytest.raises(RunError, match=rf"the run folder {folder} (is a file|cannot be written to)"):
            make_folder(folder)
    assert file.read_text() == "precious"


def test_a_folder_that_cannot_be_made():
    with pytest.raises(RunError, match="the run folder /proc/tljax cannot be written to: "):
        make_folder(pathlib.Path("/proc/tljax"))


@contextlib.contextmanager
def no_file_above(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_error_and_earlier_checkpoints_are_intact(tmp_path, capfd):
    saved(tmp_path, (1, 2))
    big = tree(3) | {"w": jnp.asarray(np.random.default_rng(0).normal(size=(30, 40)), jnp.float32)}

    def fill_the_disk():
        with RunCheckpoints(tmp_path, CONFIG) as checkpoints, no_file_above(3000):
            checkpoints.save(3, big, {"rows": 3})
            checkpoints.wait()

    with pytest.raises(RunError, match=rf"could not be written to {tmp_path}: File too large. Earlier .* are intact"):
        fill_the_disk()
    assert capfd.readouterr().err == ""  # orbax has no say
    assert issubclass(RunError, TljaxError)
    (step, found, _), told = restored(tmp_path)
    assert (step, told) == (2, [])
    assert bits(found) == bits(tree(2))


def test_a_disk_that_is_known_to_be_too_small(tmp_path, monkeypatch):
    with RunCheckpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(1, tree(1), {})
        checkpoints.wait()
        usage = shutil.disk_usage(tmp_path)._replace(free=50_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(RunError, match=r"checkpoint 2 needs 0.1 MB in .*, which has 0.1 MB left. Earlier"):
            checkpoints.save(2, tree(2), {})
    assert restored(tmp_path)[0][0] == 1


def test_the_first_error_is_the_one_that_is_told(tmp_path):
    def fail_twice():
        with RunCheckpoints(tmp_path, CONFIG) as checkpoints, no_file_above(500):
            checkpoints.save(1, tree(1), {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_twice()
    restored(tmp_path)  # released
