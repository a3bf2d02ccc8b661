"""Models on the Hugging Face Hub by name, fetched into its cache by the `huggingface_hub` library (extra `hub`).

    hf://owner/name    hf://owner/name@revision    hf://owner/name/folder    hf://owner/name@revision/a/file.safetensors

Of a model comes what `find_weights` would choose in a folder, and the small files that say what it is.  What the
library honours holds here: HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.  Where the Hub cannot be
asked, the cache answers.
"""

import contextlib
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tljax.checkpoints.errors import CheckpointError, first_line, shown
from tljax.checkpoints.folder import Found, choose
from tljax.checkpoints.sharded import SUFFIX as INDEX_SUFFIX
from tljax.checkpoints.sharded import read_index
from tljax.tree import nearest

BESIDE = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentence_bert_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "adapter_config.json",
)
"""The small files that come with the weights."""
_NAME = re.compile(r"hf:/{1,2}([\w.-]+(?:/[\w.-]+)?)(?:@(refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/(.+))?")
_OTHERS = ("datasets", "spaces", "buckets", "models")


class HubName(NamedTuple):
    """A name, taken apart."""

    repo: str
    revision: str
    inside: str
    """A folder or a file in it, "" for the whole."""

    def __str__(self) -> str:
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf://{self.repo}{at}" + (f"/{self.inside}" if self.inside else "")


class _Snapshot(NamedTuple):
    """One commit of a model, as far as it is known here."""

    commit: str
    names: Sequence[str]
    """Its files; those in the cache where the Hub could not be asked."""
    folder: pathlib.Path | None
    """Where the cache has it; None where the Hub could be asked."""
    why: Exception | None = None
    """Why it could not."""


class _Place(NamedTuple):
    """What a name means in a commit: a folder, and perhaps one file of it."""

    start: str
    """The folder, with its "/"; "" for the whole."""
    file: str
    """The file, "" where none is named."""
    names: Sequence[str]
    """All files in the folder, by their paths in it."""

    @property
    def beside(self) -> list[str]:
        return [file for file in BESIDE if file in self.names]


def is_hub_name(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a name on the Hub.

    >>> is_hub_name("hf://owner/name"), is_hub_name("weights/hf.safetensors")
    (True, False)
    """
    return os.fspath(path).startswith("hf:/")


def parse(path: str | os.PathLike[str]) -> HubName:
    """The parts of a name; a "/" in a revision is written %2F.

    Raises `CheckpointError` where it is none.

    >>> parse("hf://owner/name@v1.0/onnx/model.safetensors")
    HubName(repo='owner/name', revision='v1.0', inside='onnx/model.safetensors')
    """
    text = os.fspath(path)
    repo, revision, inside = found.groups(default="") if (found := _NAME.fullmatch(text)) else ("", "", "")
    astray = {".", ".."} & set(inside.split("/")) or (inside and "/" not in repo) or repo.split("/")[0] in _OTHERS
    if not repo or astray:
        raise CheckpointError(
            f"{shown(text, 200)} is no model on the Hub; expected hf://owner/name or hf://owner/name@revision"
        )
    return HubName(repo, urllib.parse.unquote(revision) or "main", inside.strip("/"))


def fetch(path: str | os.PathLike[str], format: str | None = None) -> Found:
    """The weights that the name `path` means, in the cache; `format` as for `find_weights`.

    Raises `CheckpointError` for a model, revision or file that is not there or not for us, for one that the Hub cannot
    be asked for and the cache lacks, and without the `huggingface_hub` library.
    """
    name = parse(path)
    with _told(name):
        snapshot = _snapshot(name)
        place = _place(name, snapshot.names)
        weights, notes = (place.file, ()) if place.file else choose(place.names, format, name)
        folder = _download(name, snapshot, place, [*place.beside, weights])
        if weights.endswith(INDEX_SUFFIX):
            shards = set(read_index(folder / weights)["weight_map"].values())
            _download(name, snapshot, place, sorted(shards))
    return Found(folder / weights, (*notes, _note(name, snapshot)))


def fetch_beside(path: str | os.PathLike[str]) -> pathlib.Path:
    """The folder in the cache of what stands beside the weights that the name `path` means: `BESIDE`, no weights.

    Errors are those of `fetch`.
    """
    name = parse(path)
    with _told(name):
        snapshot = _snapshot(name)
        place = _place(name, snapshot.names)
        if not place.beside:
            expected, held = ", ".join(BESIDE[:4]), shown(", ".join(place.names), 300)
            raise CheckpointError(f"{name} has none of {expected} ...; it has {held}")
        return _download(name, snapshot, place, place.beside)


def local_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """The folder `path`; of a name on the Hub, the one that `fetch_beside` gives.

    >>> str(local_folder("weights"))
    'weights'
    """
    return fetch_beside(path) if is_hub_name(path) else pathlib.Path(path)


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointError("names on the Hub take the huggingface_hub library: pip install 'tljax[hub]'") from error
    return huggingface_hub


def _snapshot(name: HubName) -> _Snapshot:
    hub = _library()
    try:
        info = hub.HfApi().model_info(name.repo, revision=name.revision)
        return _Snapshot(info.sha, tuple(file.rfilename for file in info.siblings or ()), None)
    except (hub.errors.RevisionNotFoundError, hub.errors.HFValidationError):
        raise
    except Exception as error:  # the network, the server, a token: whatever it is, the cache may have the model
        try:
            cached = hub.snapshot_download(name.repo, revision=name.revision, local_files_only=True, allow_patterns=[])
        except hub.errors.LocalEntryNotFoundError:
            raise error from None
        folder = pathlib.Path(cached)
        names = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
        return _Snapshot(folder.name, names, folder, error)


def _place(name: HubName, names: Sequence[str]) -> _Place:
    """What `name` means among the files `names`. Raises `CheckpointError` where that is nothing."""
    inside, file = name.inside, ""
    if inside in names:
        inside, _, file = inside.rpartition("/")
    start = f"{inside}/" if inside else ""
    under = tuple(found.removeprefix(start) for found in names if found.startswith(start))
    if not under:
        close = ", ".join(map(repr, nearest(inside, names) or names[:8]))
        raise CheckpointError(f"{name._replace(inside='')} has no {inside!r}; the nearest are {close or 'none'}")
    return _Place(start, file, under)


def _download(name: HubName, snapshot: _Snapshot, place: _Place, files: Sequence[str]) -> pathlib.Path:
    """The folder of `place` in the cache, once `files` are there."""
    if snapshot.folder is not None:
        folder = snapshot.folder / place.start
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise CheckpointError(f"{name}: the cache lacks {shown(', '.join(missing), 300)}, and {_why(snapshot.why)}")
        return folder
    exact = [re.sub(r"([*?[])", r"[\1]", place.start + file) for file in files]
    # By the revision's own name, so that the cache knows it without the Hub.
    found = pathlib.Path(_library().snapshot_download(name.repo, revision=name.revision, allow_patterns=exact))
    if found.name != snapshot.commit:
        raise CheckpointError(f"{name} changed while it was being fetched; fetch it again")
    return found / place.start


def _note(name: HubName, snapshot: _Snapshot) -> str:
    said = f"{name._replace(inside='')} is commit {snapshot.commit}"
    return said if snapshot.why is None else f"{said}, from the cache: {_why(snapshot.why)}"


def _why(error: Exception | None) -> str:
    """Why the Hub could not be asked."""
    if isinstance(error, _library().errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask the Hub"
    return f"the Hub could not be asked: {type(error).__name__}: {first_line(error, 200)}"


@contextlib.contextmanager
def _told(name: HubName) -> Iterator[None]:
    """Any failure inside becomes one `CheckpointError` that says what to do."""
    errors = _library().errors
    token = "a token that opens it: HF_TOKEN, or `hf auth login`"
    try:
        yield
    except CheckpointError:
        raise
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{name} is gated: accept its conditions on its page, and give {token}") from error
    except errors.RepositoryNotFoundError as error:
        text = f"{name}: there is no such model on the Hub, or it is private and needs {token}"
        raise CheckpointError(text) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name}: the model has no revision {name.revision!r}") from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{name} is no name on the Hub: {first_line(error)}") from error
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise CheckpointError(f"{name}: the Hub answers {status}: it needs {token}") from error
        raise CheckpointError(f"{name} is not in the cache, and {_why(error)}") from error
