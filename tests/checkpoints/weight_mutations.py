"""Seeded damage to weight files: blind (any bytes) and informed (headers, directories and pickles that lie)."""

import io
import json
import pathlib
import re
import warnings
import zipfile
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
EXTREMES = (
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
EVIL_GLOBALS = (b"posix\nsystem", b"builtins\neval", b"subprocess\nPopen", b"builtins\nbytearray", b"torch\nTensor")


def flip_bits(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flip_near_an_end(data: bytes, rng: Rng) -> bytes:
    n = min(len(data), 400)
    if rng.random() < 0.5:
        return flip_bits(data[:n], rng) + data[n:]
    return data[:-n] + flip_bits(data[-n:], rng)


def truncate(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(len(data))]


def append(data: bytes, rng: Rng) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 100)))


def overwrite_integer(data: bytes, rng: Rng) -> bytes:
    width = int(rng.choice([1, 2, 4, 8]))
    value = EXTREMES[rng.integers(len(EXTREMES))] % 2 ** (8 * width)
    at = int(rng.integers(min(len(data), 2000)))
    order = "little" if rng.random() < 0.5 else "big"
    return (data[:at] + value.to_bytes(width, order) + data[at + width :])[: len(data)]


def cut_out(data: bytes, rng: Rng) -> bytes:
    start, end = sorted(rng.integers(len(data), size=2))
    return data[:start] + data[end:]


def repeat(data: bytes, rng: Rng) -> bytes:
    start, end = sorted(rng.integers(len(data), size=2))
    return data[:end] + data[start:end] + data[end:]


def blank(data: bytes, rng: Rng) -> bytes:
    start, end = sorted(rng.integers(len(data), size=2))
    return data[:start] + bytes(1) * int(end - start) + data[end:]


def wrong_magic(data: bytes, rng: Rng) -> bytes:
    heads = (
        b"PK\x03\x04",
        b"\x80\x02",
        b"\x93NUMPY",
        b"\x89HDF\r\n",
        b"GGUF",
        b"<html",
        b"\x00" * 8,
        b"{}",
        b"\xdf\xff\xff\xff\xff",
    )
    head = heads[rng.integers(len(heads))]
    return head + data[len(head) :]


def nan_weights(data: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(len(data) // 2, len(data)))
    return (data[:at] + b"\xff\xff\xff\x7f" * 3 + data[at + 12 :])[: len(data)]


BLIND = (
    flip_bits,
    flip_near_an_end,
    truncate,
    append,
    overwrite_integer,
    cut_out,
    repeat,
    blank,
    wrong_magic,
    nan_weights,
)


def mutate(data: bytes, kind: str, rng: Rng) -> bytes:
    """`data`, a file of the format `kind`, damaged in one way, sometimes in two."""
    informed = INFORMED.get(kind, ())
    ways: tuple[Callable[[bytes, Rng], bytes], ...] = (*BLIND, *(informed * 4))
    damaged = ways[rng.integers(len(ways))](data, rng)
    return flip_bits(damaged, rng) if damaged and rng.random() < 0.1 else damaged


def edit_safetensors(data: bytes, rng: Rng) -> bytes:
    """A header that parses and lies: about offsets, shapes, dtypes, names, or its own length."""
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.choice(names), rng.choice(names)
    entry = header[name]
    odd = [-1, 0, 2**63, 1.5, True, None, "3", [], {}, 2**200, 10**6][rng.integers(11)]
    match int(rng.integers(10)):
        case 0:
            entry["data_offsets"][rng.integers(2)] = odd
        case 1:
            entry["data_offsets"] = header[other]["data_offsets"]
        case 2:
            entry["shape"] = [[], [odd], [2**31, 2**31], [0, 2**62], [1] * 100, odd][rng.integers(6)]
        case 3:
            entry["dtype"] = ["F64", "BF16", "F4", "BOOL", "U8", "OBJ", 3, None][rng.integers(8)]
        case 4:
            del header[name]
        case 5:
            header[["a" * 5000, "../../x", "a" + "/b" * 3000, "\ud800", "", "__metadata__"][rng.integers(6)]] = (
                header.pop(name)
            )
        case 6:
            entry[["extra", "dtype"][rng.integers(2)]] = odd
        case 7:
            shift = int(rng.integers(-8, 9))
            entry["data_offsets"] = [x + shift for x in entry["data_offsets"]]
        case 8:
            header["__metadata__"] = odd
    text = json.dumps(header).encode()
    if rng.random() < 0.1:
        text = text[:-1] + b"," + text[1:]  # every name twice
    length = len(text) if rng.random() < 0.9 else int(EXTREMES[rng.integers(len(EXTREMES))])
    return length.to_bytes(8, "little") + text + data[8 + n :]


def edit_zip(data: bytes, rng: Rng) -> bytes:
    """The same members, one of them renamed, doubled, emptied, packed otherwise, cut, or joined by another."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    i = int(rng.integers(len(members)))
    name, content = members[i]
    method = zipfile.ZIP_STORED
    match int(rng.integers(9)):
        case 0:
            members[i] = (
                ["../../evil.npy", "/etc/evil.npy", "a/../../b.npy", "x\\..\\..\\y.npy", "evil", ""][rng.integers(6)],
                content,
            )
        case 1:
            members.append((name, content[::-1]))
        case 2:
            members[i] = (name, b"")
        case 3:
            method = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA][rng.integers(3)]
        case 4:
            members[i] = (name, truncate(content or b"x", rng))
        case 5:
            members[i] = (name, append(content, rng))
        case 6:
            del members[i]
        case 7:
            members[i] = (name, flip_near_an_end(content, rng) if content else content)
        case 8:
            members[i] = (name, overwrite_integer(content, rng) if content else content)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for member, body in members:
            with warnings.catch_warnings(action="ignore"):  # of a name given twice
                archive.writestr(member or "x", body)
    return out.getvalue()


def edit_npy_header(data: bytes, rng: Rng) -> bytes:
    """Change the literal in front of an array of the same length: its shape, dtype or order."""
    shapes = (b"(9,9)", b"(-1,)", b"(2**9,)", b"7", b"(True,)", b"(2147483648,2147483648)")
    swaps = [
        (rb"'shape': \([^)]*\)", [b"'shape': " + shape for shape in shapes]),
        (rb"'descr': '[^']*'", [b"'descr': '%b'" % d for d in (b"|O", b"<f8", b">f4", b"|V2", b"<U9", b"f16", b"|V1")]),
        (rb"'fortran_order': \w+", [b"'fortran_order': " + x for x in (b"True", b"3", b"eval('1')")]),
        (rb"\{'descr'", [b"(((((((", b"{'descz'"]),
    ]
    pattern, replacements = swaps[rng.integers(len(swaps))]
    replacement = replacements[rng.integers(len(replacements))]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[rng.integers(len(members))]
    body = members[name]
    n = int.from_bytes(body[8:10], "little")
    head = re.sub(pattern, lambda _: replacement, body[10 : 10 + n].rstrip(), count=1).ljust(n - 1)[: n - 1] + b"\n"
    members[name] = body[:10] + head + body[10 + n :]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


def edit_msgpack(data: bytes, rng: Rng) -> bytes:
    """Change a length or type byte somewhere before an array."""
    places = [m.start() for m in re.finditer(rb"[\x80-\x9f\xa0-\xbf\xc4-\xdf]", data)]
    at = places[rng.integers(len(places))]
    value = [0xDF, 0xDD, 0xDB, 0xC6, 0xC9, 0xC1, 0x80, 0x90, data[at] ^ 1, data[at] + 1 & 0xFF][rng.integers(10)]
    extra = b"\xff\xff\xff\xff" if rng.random() < 0.3 else b""
    return data[:at] + bytes([value]) + extra + data[at + 1 :]


def edit_pickle(data: bytes, rng: Rng) -> bytes:
    """A pickle that calls something else, or asks for other storages."""
    match int(rng.integers(5)):
        case 0:
            found = rb"torch._utils\n_rebuild_tensor_v2|collections\nOrderedDict|torch\n\w+Storage"
            evil = EVIL_GLOBALS[rng.integers(len(EVIL_GLOBALS))]
            return re.sub(found, lambda _: evil, data, count=int(rng.integers(1, 4)))
        case 1:
            return _edit_one(rb"cpuq.K.", data, rng, lambda old: old[:-1] + bytes([int(rng.integers(256))]))
        case 2:
            return _edit_one(rb"K.K.\x86", data, rng, lambda old: b"K" + rng.bytes(1) + b"K" + rng.bytes(1) + b"\x86")
        case 3:
            return _edit_one(rb"X\x01\x00\x00\x00\d", data, rng, lambda old: old[:-1] + b"%d" % rng.integers(10))
        case _:
            return _edit_one(rb"h.|q.", data, rng, lambda old: old[:1] + rng.bytes(1))


def edit_zipped_pickle(data: bytes, rng: Rng) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, edit_pickle(content, rng) if name.endswith("data.pkl") else content)
    return out.getvalue()


def _edit_one(pattern: bytes, data: bytes, rng: Rng, change: Callable[[bytes], bytes]) -> bytes:
    found = list(re.finditer(pattern, data, re.DOTALL))
    if not found:
        return flip_bits(data, rng)
    match = found[rng.integers(len(found))]
    return data[: match.start()] + change(match[0]) + data[match.end() :]


def edit_index(data: bytes, rng: Rng) -> bytes:
    index = json.loads(data)
    name = list(index["weight_map"])[rng.integers(len(index["weight_map"]))]
    others = sorted(set(index["weight_map"].values()))
    odd = [
        "../secret.safetensors",
        "/etc/passwd",
        "",
        ".",
        "..",
        "a\\..\\b",
        3,
        None,
        [],
        "gone.safetensors",
        "\0",
        *others,
    ]
    match int(rng.integers(4)):
        case 0:
            index["weight_map"][name] = odd[rng.integers(len(odd))]
        case 1:
            index["weight_map"]["surplus"] = odd[rng.integers(len(odd))]
        case 2:
            del index["weight_map"][name]
        case _:
            index["weight_map"] = odd[rng.integers(len(odd))]
    return json.dumps(index).encode()


INFORMED: dict[str, tuple[Callable[[bytes, Rng], bytes], ...]] = {
    "safetensors": (edit_safetensors, edit_safetensors),
    "npz": (edit_zip, edit_npy_header),
    "msgpack": (edit_msgpack,),
    "torch": (edit_zip, edit_zipped_pickle),
    "legacy": (edit_pickle, edit_pickle),
    "index": (edit_index, edit_index),
}


def mutate_folder(folder: pathlib.Path, rng: Rng) -> None:
    """Damage one file of a folder, delete it, or put a folder in its place."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    file = files[rng.integers(len(files))]
    match int(rng.integers(6)):
        case 0:
            file.unlink()
        case 1:
            file.unlink()
            file.mkdir()
        case _:
            data = file.read_bytes() or b"\0"
            kind = "index" if file.name.endswith(".index.json") else file.suffix.lstrip(".")
            file.write_bytes(mutate(data, kind, rng))
