"""The devices that a recipe's training is spread over, as a command line says it."""

from jax.sharding import Mesh

from tljax.recipes.options import SettingsError
from tljax.training import MeshError, mesh
from tljax.training.mesh import AXES


def sizes_of(text: str) -> dict[str, int]:
    """The axes in ``"data=4,fsdp=2"`` with their sizes; raises `SettingsError`.

    >>> sizes_of("data=4,fsdp=2")
    {'data': 4, 'fsdp': 2}
    >>> sizes_of("fspd=2")
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: option 'mesh' is 'fspd=2'; it should be like data=4,fsdp=2, of the axes ...
    """
    parts = [part.partition("=") for part in text.split(",")]
    names = [name for name, _, _ in parts]
    if not all(name in AXES and size.isdecimal() for name, _, size in parts) or len(set(names)) < len(names):
        raise SettingsError(
            f"option 'mesh' is {text!r}; it should be like data=4,fsdp=2, of the axes {', '.join(AXES)}, each once"
        )
    return {name: int(size) for name, _, size in parts}


def mesh_of(text: str) -> Mesh:
    """The mesh of those sizes; raises `SettingsError` where the devices do not give it.

    >>> dict(mesh_of("fsdp=1,data=1").shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    """
    sizes = sizes_of(text)
    try:
        return mesh(sizes.get("data"), sizes.get("fsdp", 1), sizes.get("tensor", 1))
    except MeshError as error:
        raise SettingsError(f"option 'mesh' is {text!r}: {error}") from error
