"""Numbers in README.md and docs/ come from the JSON in `benchmarks/results/`: this writes the tables, checks the rest.

In a page stands, as a comment that nobody sees, where a number comes from. A whole table is written by this script:

    <!-- table: methods benchmarks/results/compare_methods_images.json -->
    ```text
    ...
    ```

`methods` is a function of `TABLES` below. Where the path is the beginning of several files' names, they are read by
name. Numbers in a sentence, or in a table written by hand, are checked: every one
of them must stand in the paragraph after the comment, in the same order. They are fields of Python's `str.format`; `!p`
gives percent, `!m` thousandths, and `!i` one over it:

    <!-- numbers: benchmarks/results/lora_step.json {steps[LoRA factored][flops_of_full]:.2f} -->

    python benchmarks/readme.py     # writes the tables, tells what does not agree, and is 1 where something does not
"""

import json
import pathlib
import re
import string
import sys
from collections.abc import Callable, Mapping
from typing import Any

import domain_amazon
import domain_digits
from against_torch.table import text as against_torch

from tljax.evaluation.report import render_text
from tljax.evaluation.report.comparison import method_table
from tljax.evaluation.report.text import aligned
from tljax.recipes.bench.table import results_text

ROOT = pathlib.Path(__file__).resolve().parents[1]
TABLE = re.compile(r"(<!-- table: (\w+) (\S+) -->\n```text\n)(.*?)(\n```)", re.DOTALL)
NUMBERS = re.compile(r"<!-- numbers: (\S+)\s+(.*?) -->\n(?=(?:<!--.*?-->\n)*(.*?)(?:\n\n|\Z))", re.DOTALL)


def methods(results: Mapping[str, Any]) -> str:
    """The table of `tljax finetune`."""
    table = method_table(results)
    return aligned([table.head, *(tuple(cell.plain for cell in row) for row in table.rows)])


def report(results: Mapping[str, Any]) -> str:
    """What a recipe prints at its end."""
    return render_text(results).rstrip("\n")


def digits(cells: Mapping[str, Any]) -> str:
    """The digits table of a direction and a number of steps, without what was not run."""
    first = next(iter(cells.values()))
    return domain_digits.table(cells.values(), first["direction"], first["steps"]).partition("\nnot run")[0]


def amazon(results: Mapping[str, Any]) -> str:
    """The table of the Amazon reviews."""
    return "\n".join(line.rstrip() for line in domain_amazon.table(results["accuracy"]).splitlines())


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "methods": methods,
    "report": report,
    "bench": results_text,
    "against_torch": against_torch,
    "digits": digits,
    "amazon": amazon,
}


class Fields(string.Formatter):
    """`str.format` over JSON: names in brackets are keys of objects or numbers of a list."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        """The value at ``a[b][2]``."""
        found: Any = kwargs
        for name in re.split(r"[\[\]]+", field_name.rstrip("]")):
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found, field_name

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        """Percent, thousandths, or one over the value."""
        if conversion == "i":
            return 1 / value
        return value * {"p": 100, "m": 1000}.get(conversion or "", 1) if conversion else value


def updated(page: str) -> str:
    """`page` with its tables as the JSON has them."""
    return TABLE.sub(lambda found: found[1] + TABLES[found[2]](_read(found[3])) + found[5], page)


def complaints(page: str) -> list[str]:
    """What in `page` does not agree with the JSON."""
    said = ["a table is not what the JSON gives"] if updated(page) != page else []
    for found in NUMBERS.finditer(page):
        at, results = 0, _read(found[1])
        for field in re.findall(r"\{.*?\}", found[2]):
            number = Fields().vformat(field, (), results)
            place = re.compile(rf"(?<![\d.,]){re.escape(number)}(?![\d]|[.,]\d)").search(found[3], at)
            if place is None:
                said.append(f"{found[1]}: {field} is {number}, which does not stand in {found[3][at:][:80]!r}")
            else:
                at = place.end()
    return said


def pages() -> list[pathlib.Path]:
    """Where numbers may stand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _read(name: str) -> dict[str, Any]:
    path = ROOT / name
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return {file.name: json.loads(file.read_text()) for file in sorted(path.parent.glob(f"{path.name}*.json"))}


def main() -> int:
    """Write the tables, tell what is wrong."""
    said = []
    for page in pages():
        text = page.read_text()
        if updated(text) != text:
            page.write_text(updated(text))
            print(f"{page.relative_to(ROOT)}: tables written")
        said += [f"{page.relative_to(ROOT)}: {what}" for what in complaints(page.read_text())]
    print("\n".join(said))
    return bool(said)


if __name__ == "__main__":
    sys.exit(main())
