"""The main job at its defaults, `tljax transfer`: the run whose report stands in README.md.

    python benchmarks/transfer.py [--run-dir runs/transfer]

The same as `tljax transfer`, but that the results are kept as JSON beside the others, without curves and confusions.
"""

import argparse
import json
import pathlib

from facts import facts

from tljax.recipes.settings import settings_from
from tljax.recipes.transfer import run_transfer

RESULT = pathlib.Path(__file__).parent / "results" / "transfer.json"


def main() -> None:
    """Run it, or read what was run; print the report; write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", default="runs/transfer")
    options = parser.parse_args()
    outcome = run_transfer(settings_from({"run_dir": options.run_dir}))
    print(outcome)
    timing = json.loads((outcome.folder / "timing.json").read_text())
    kept = {name: value for name, value in outcome.results.items() if name != "curves"}
    left_out = ("confusion", "test")
    kept["cells"] = [{k: v for k, v in cell.items() if k not in left_out} for cell in kept["cells"]]
    RESULT.write_text(json.dumps(facts() | kept | {"timing": timing}, indent=1) + "\n")


if __name__ == "__main__":
    main()
