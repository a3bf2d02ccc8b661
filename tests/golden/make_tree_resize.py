"""Writes tree_resize.npz: position grids as torch and scipy resize them. Run by hand where both are installed.

python tests/golden/make_tree_resize.py
"""

import pathlib

import numpy as np

GRIDS = [((4, 4), (6, 6)), ((6, 6), (3, 3)), ((3, 5), (4, 2)), ((2, 2), (5, 7)), ((7, 7), (12, 8)), ((1, 3), (4, 4))]
WIDTH = 2


def main() -> None:
    import scipy
    import torch

    print("torch", torch.__version__, "scipy", scipy.__version__)
    rng = np.random.default_rng(0)
    arrays = {}
    for old, new in GRIDS:
        cells = rng.normal(size=(*old, WIDTH)).astype(np.float32)
        key = f"{old[0]}x{old[1]}_to_{new[0]}x{new[1]}"
        arrays[f"{key}/source"] = cells
        arrays[f"{key}/big_vision"] = zoomed(cells, new)
        for method, options in {
            "timm": {"mode": "bicubic", "antialias": True},
            "huggingface": {"mode": "bicubic", "antialias": False},
            "bilinear": {"mode": "bilinear", "antialias": False},
        }.items():
            image = torch.from_numpy(cells).permute(2, 0, 1)[None]
            out = torch.nn.functional.interpolate(image, size=new, align_corners=False, **options)
            arrays[f"{key}/{method}"] = out[0].permute(1, 2, 0).numpy()
    path = pathlib.Path(__file__).with_name("tree_resize.npz")
    np.savez(path, **arrays)
    print(path, path.stat().st_size, "bytes")


def zoomed(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import scipy.ndimage

    return scipy.ndimage.zoom(cells, (size[0] / cells.shape[0], size[1] / cells.shape[1], 1), order=1)


if __name__ == "__main__":
    main()
