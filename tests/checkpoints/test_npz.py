import io
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.checkpoints import CheckpointError, load_weights, read_weights, save_weights


def zip_file(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy(array, **kwargs) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def test_a_google_vit_file(tmp_path):
    names = [
        "cls",
        "embedding/kernel",
        "Transformer/encoderblock_0/LayerNorm_0/scale",
        "Transformer/posembed_input/pos_embedding",
    ]
    arrays = {name: np.full((2, i + 1), i, np.float32) for i, name in enumerate(names)}
    np.savez(tmp_path / "ViT-B_16.npz", **arrays)
    tree = load_weights(tmp_path / "ViT-B_16.npz")
    assert tree["Transformer"]["encoderblock_0"]["LayerNorm_0"]["scale"].tolist() == [[2.0] * 3] * 2
    assert set(read_weights(tmp_path / "ViT-B_16.npz").leaves) == set(names)


def test_a_big_vision_file_with_optimiser_state(tmp_path):
    arrays = {
        "params/img/head/kernel": np.ones((2, 2)),
        "params/t": np.ones(1),
        "opt/0/mu/img/head/kernel": np.ones((2, 2)),
    }
    np.savez_compressed(tmp_path / "siglip.npz", **arrays)
    weights = read_weights(tmp_path / "siglip.npz")
    assert set(weights.leaves) == {"img/head/kernel", "t"}
    assert weights.report.unwrapped == ("params",)
    assert weights.report.left_out == {"opt": "optimiser state (1 array)"}


def test_bfloat16_is_filed_as_two_byte_void(tmp_path):
    leaf = jnp.array([1.5, -2.0, jnp.inf], jnp.bfloat16)
    np.savez(tmp_path / "theirs.npz", w=np.asarray(leaf).view("V2"))
    save_weights({"w": leaf}, tmp_path / "ours.npz")
    for name in ("theirs.npz", "ours.npz"):
        found = load_weights(tmp_path / name)["w"]
        assert found.dtype == jnp.bfloat16
        assert found.tobytes() == np.asarray(leaf).tobytes()
    with np.load(tmp_path / "ours.npz") as archive:
        assert archive["w"].dtype == "V2"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.arange(3, dtype=">f4"),
        np.array(True),
        np.array(1 + 2j, np.complex64),
        np.zeros((0, 3), np.float16),
        np.uint64(2**63),
    ],
    ids=lambda a: f"{a.dtype.str}{a.shape}",
)
def test_numpy_arrays_of_every_kind(tmp_path, array):
    np.savez(tmp_path / "w.npz", w=array)
    found = load_weights(tmp_path / "w.npz")["w"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.flags.c_contiguous


def test_numpy_reads_what_we_write(tmp_path):
    save_weights({"file": np.ones(2), "a": {"b": np.arange(6).reshape(2, 3).T}}, tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"file", "a/b"}
        np.testing.assert_array_equal(archive["a/b"], np.arange(6).reshape(2, 3).T)


def test_the_same_weights_make_the_same_file(tmp_path):
    for name in ("a", "b"):
        save_weights({"w": np.ones(2)}, tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_strings_are_left_out_and_told(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.ones(2), author=np.array("me"))
    assert read_weights(tmp_path / "w.npz").report.left_out == {"author": "array of <U2"}


def test_float8_needs_another_format(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"float8_e5m2, which npz cannot tell from raw bytes; save as \.safetensors"
    ):
        save_weights({"w": jnp.ones(2, jnp.float8_e5m2)}, tmp_path / "w.npz")
    assert not list(tmp_path.iterdir())


class Evil:
    def __reduce__(self):
        return (open, ("evil-was-here", "w"))


def test_objects_are_refused_and_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("w.npz", w=np.ones(2), evil=np.array([Evil()], object))
    with pytest.raises(CheckpointError, match=r"'evil\.npy' holds Python objects, which only pickle could read"):
        load_weights("w.npz")
    assert not (tmp_path / "evil-was-here").exists()


ONE = npy(np.ones(2))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../up.npy", ONE)], "leads out of the archive"),
        ([("a/../../up.npy", ONE)], "leads out of the archive"),
        ([("..\\up.npy", ONE)], "leads out of the archive"),
        ([("w.txt", b"hello")], "expected .npy arrays or torch"),
        ([("w.npy", ONE), ("readme.txt", b"hello")], "reading the .npy header failed"),
        ([("w.npy", ONE), ("w", ONE)], "expected one array a member"),
        ([("w.npy", ONE[:-1])], r"has 15 bytes; float64 of shape \[2\] takes 16"),
        ([("w.npy", ONE + b"x")], "has 17 bytes"),
        ([("w.npy", b"")], "reading the .npy header failed"),
        ([("w.npy", npy(np.ones(2, "f16")))], "dtype float128, which no weight has"),
        ([("w.npy", npy(np.ones(2, "V3")))], "which no weight has"),
        ([("w.npy", npy(np.ones(2, "V1")))], "which no weight has"),
        ([("w.npy", npy(np.zeros(2, "f4,i4")))], "which no weight has"),
    ],
)
def test_archives_that_cannot_be_right(tmp_path, members, message):
    with pytest.raises(CheckpointError, match=message):
        load_weights(zip_file(tmp_path / "w.npz", members))


def test_a_name_given_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        zip_file(tmp_path / "w.npz", [("w.npy", ONE), ("w.npy", npy(np.zeros(2)))])
    with pytest.raises(CheckpointError, match=r"two members are called 'w.npy'"):
        load_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression(tmp_path, method):
    with pytest.raises(CheckpointError, match="expected stored or deflated"):
        load_weights(zip_file(tmp_path / "w.npz", [("w.npy", ONE)], method))


def test_a_bomb_is_not_unpacked(tmp_path):
    header = npy(np.zeros(0, np.uint8)).replace(b"(0,)", b"(134217728,)")[:-13].ljust(127) + b"\n"
    path = zip_file(tmp_path / "w.npz", [("w.npy", header + bytes(1 << 27))], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 18
    with pytest.raises(CheckpointError, match="decompression bomb"):
        load_weights(path)


def test_many_zeros_in_a_real_file_are_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", w=np.zeros(1 << 20, np.float32))
    assert load_weights(tmp_path / "w.npz")["w"].size == 1 << 20


def test_a_flipped_bit_fails_the_checksum(tmp_path):
    path = zip_file(tmp_path / "w.npz", [("w.npy", npy(np.arange(100.0)))])
    data = bytearray(path.read_bytes())
    data[400] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="failed: BadZipFile: Bad CRC-32"):
        load_weights(path)
