"""How sentence-transformers makes one vector of a sentence: what its folders say beside the weights."""

import json
import os
import pathlib
from collections.abc import Collection
from typing import Any

from tljax.checkpoints.hub import local_folder
from tljax.models.family import Beside
from tljax.models.wrapping import ModelError

_POOLING = "1_Pooling/config.json"
_MODES = {"mean_tokens": "mean", "cls_token": "cls"}


def pooling(folder: str | os.PathLike[str]) -> str:
    """How a folder of sentence-transformers pools, by its 1_Pooling/config.json: "mean" or "cls".

    `load_pretrained` does so by itself, unless it is told ``pool=``.

    Raises `ModelError` where the file is missing, damaged, or names another pooling.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (pathlib.Path(folder) / "1_Pooling").mkdir()
    ...     _ = (pathlib.Path(folder) / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    ...     pooling(folder)
    'cls'
    """
    path = local_folder(folder) / _POOLING
    config = _json(path, dict)
    modes = [key.removeprefix("pooling_mode_") for key, on in config.items() if "pooling_mode_" in key and on is True]
    modes += [config["pooling_mode"]] if "pooling_mode" in config else []
    found = _MODES.get(modes[0], modes[0]) if len(modes) == 1 else None
    if found not in ("mean", "cls"):
        raise ModelError(
            f"'{path}' pools by {', '.join(map(str, modes)) or 'nothing'}; expected mean or cls, or write pool="
        )
    return found


def sentence_encoder(folder: pathlib.Path, given: Collection[str]) -> Beside:
    """What a folder of sentence-transformers says of an encoder; `given` are the options that are settled.

    Unit length is told and not taken over: a fresh head learns slowly from features as small as that.

    Raises `ModelError` as `pooling` does.
    """
    pool = {"pool": pooling(folder)} if "pool" not in given and (folder / _POOLING).is_file() else {}
    notes = []
    path = folder / "modules.json"
    modules = _json(path, list) if path.is_file() else []
    for module in modules:
        kind = str(module.get("type") if isinstance(module, dict) else module).rsplit(".", 1)[-1]
        if kind == "Normalize" and "normalize" not in given:
            notes.append("modules.json scales the features to unit length; write normalize=True for that")
        elif kind not in ("Transformer", "Pooling", "Normalize", "Dropout"):
            notes.append(f"modules.json has a module {kind} after the encoder, which is not read")
    return Beside(pool, (_POOLING,) if pool else (), tuple(notes))


def sentence_files(pool: str, width: int, normalize: bool) -> dict[str, Any]:
    """The files beside an encoder by which sentence-transformers, and `sentence_encoder`, know how it pools.

    >>> sorted(sentence_files("mean", 384, False)), sentence_files("pooler", 384, False)
    (['1_Pooling/config.json', 'modules.json'], {})
    """
    if pool not in _MODES.values():
        return {}  # the dense layer of BERT's own pooler is part of the encoder there
    modes = {f"pooling_mode_{mode}": name == pool for mode, name in _MODES.items()}
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    return {_POOLING: {"word_embedding_dimension": width} | modes, "modules.json": modules}


def _json(path: pathlib.Path, kind: type[dict] | type[list]) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read '{path}': {error}; expected the JSON of sentence-transformers") from error
    if not isinstance(found, kind):
        expected = "object" if kind is dict else "array"
        raise ModelError(f"'{path}' holds {type(found).__name__}; expected a JSON {expected}")
    return found
