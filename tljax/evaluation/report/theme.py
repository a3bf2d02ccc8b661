"""The colours of pictures and page, for light and for dark surroundings.

A method has the same colour, mark and line style in every picture. The hues are Okabe and Ito's, which people with
any of the common colour-vision deficiencies tell apart; marks and line styles tell them apart without colour.
Reference: Okabe and Ito, Color Universal Design, 2008.
"""

from typing import NamedTuple


class Theme(NamedTuple):
    """Surroundings: the colours of everything that is not data, and which of each method's two hues is used."""

    paper: str
    ink: str
    muted: str
    grid: str
    dark: bool
    ramp: tuple[str, ...]
    """From no share to the whole share, in confusion matrices."""


LIGHT = Theme("#ffffff", "#1c2430", "#5d6875", "#e3e7ec", False, ("#ffffff", "#b5d3ea", "#4f97cc", "#0a4f8a"))
DARK = Theme("#1b2129", "#e6eaf0", "#9aa5b3", "#333c48", True, ("#1b2129", "#2b618c", "#4597d3", "#c4e3f8"))


class Style(NamedTuple):
    """How one method is drawn."""

    light: str
    dark: str
    marker: str
    line: str | tuple

    def colour(self, theme: Theme) -> str:
        """The hue that reads well in `theme`."""
        return self.dark if theme.dark else self.light


_STYLES = {
    "full": Style("#0072b2", "#56b4e9", "o", "-"),
    "scratch": Style("#4a5462", "#b4bdc9", "s", "--"),
    "linear-probe": Style("#c75000", "#f0813f", "^", "-."),
    "knn": Style("#00805c", "#27c498", "D", ":"),
    "lp-ft": Style("#b0558b", "#e08fbd", "v", (0, (5, 1, 1, 1, 1, 1))),
}
_OTHERS = (
    Style("#8a6d00", "#e6c229", "P", (0, (3, 1, 1, 1))),
    Style("#6a4fb3", "#a996ea", "X", (0, (6, 2))),
    Style("#2e6f77", "#6fc3cc", "h", (0, (1, 1))),
    Style("#a3243b", "#ff8fa0", "p", (0, (4, 2, 1, 2))),
    Style("#4d7a00", "#a5d65a", "<", (0, (8, 2))),
    Style("#7d4b1f", "#d9a066", ">", (0, (2, 2))),
    Style("#00649e", "#7ab8ff", "*", (0, (6, 1, 1, 1))),
)


def style(method: str, methods: list[str]) -> Style:
    """The style of `method`, one of `methods`; those that the report does not know get the spare ones in turn."""
    if method in _STYLES:
        return _STYLES[method]
    unknown = [name for name in methods if name not in _STYLES]
    return _OTHERS[unknown.index(method) % len(_OTHERS)]
