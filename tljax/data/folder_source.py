"""A folder of images by class as a source for `stream`: files are decoded when they are asked for."""

import dataclasses
from pathlib import Path

import numpy as np

from tljax.data.error import DataError
from tljax.data.folder import files_by_class, open_image, parts_and_classes
from tljax.data.preprocessor import Preprocessor
from tljax.tree.paths import quoted


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFolder:
    """The images of a folder by class: `images[i]` is a pair of pixels `[H, W, 3]` and a class.

    The folder is as for `load`: `<class>/*.png`, or `train/<class>/*.png` with `val/` and `test/` beside it. Images are
    read as RGB, and are the preprocessor's float32, or without one uint8 as they are.

    Raises:
      DataError: there are no class folders, one is empty, or there is no such part; when indexed, a file is no image.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         (Path(folder) / name).mkdir()
    ...         Image.new("RGB", (9, 6), "white").save(Path(folder) / name / "1.png")
    ...     images = ImageFolder(folder, Preprocessor(resize=(4, 4)))
    ...     len(images), images.classes, images[1][0].shape, images[1][1]
    (2, ('cat', 'dog'), (4, 4, 3), 1)
    """

    folder: str | Path
    preprocessor: Preprocessor | None = None
    part: str = "train"
    """`"train"`, `"valid"` or `"test"`."""
    classes: tuple[str, ...] = dataclasses.field(init=False)
    """The names of the classes, in natural order."""
    files: tuple[Path, ...] = dataclasses.field(init=False)
    labels: np.ndarray = dataclasses.field(init=False)
    """The class of each file, int32 `[N]`."""

    def __post_init__(self) -> None:
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise DataError(f"there is no folder '{folder}'")
        parts, classes = parts_and_classes(folder)
        if self.part not in parts:
            raise DataError(f"'{folder}' has no part {self.part!r}; it has {quoted(parts)}")
        found = list(files_by_class(parts[self.part], classes, self.part))
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "files", tuple(path for path, _ in found))
        object.__setattr__(self, "labels", np.array([label for _, label in found], np.int32))

    @property
    def name(self) -> str:
        """The folder's name, for messages."""
        return f"{Path(self.folder).name} {self.part}"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        image = open_image(self.files[i])
        return (np.asarray(image) if self.preprocessor is None else self.preprocessor(image)), int(self.labels[i])
