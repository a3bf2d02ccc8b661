"""What a report is made of: blocks of plain text, which each renderer escapes and sets in its own way."""

from typing import NamedTuple


def printable(text: str) -> str:
    """`text` without the control characters that a terminal or a browser would obey; spaces and line breaks stay.

    >>> printable("a  b\\x1b[31m")
    'a  b [31m'
    """
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def one_line(text: str) -> str:
    """`text` as `printable` leaves it, in one line.

    >>> one_line("a\\tb\\n c")
    'a b c'
    """
    return " ".join(printable(text).split())


class Cell(NamedTuple):
    """One cell of a table: a text, and a smaller `note` after it."""

    text: str
    note: str = ""
    strong: bool = False
    tone: str = ""
    """`"good"` or `"bad"` where the cell is one of them."""
    bar: float | None = None
    """A share in [0, 1] that may be drawn as a bar behind the text."""

    @property
    def plain(self) -> str:
        """Text and note in one line.

        >>> Cell("91.2", "± 2.1").plain
        '91.2 ± 2.1'
        """
        return f"{self.text} {self.note}".strip()


class Table(NamedTuple):
    """A table; its first column names the rows."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: bool = True
    """Whether the columns after the first hold numbers, which stand to the right."""


class Heading(NamedTuple):
    """The title of a section."""

    text: str


class Paragraph(NamedTuple):
    """Running text."""

    text: str
    small: bool = False


class Picture(NamedTuple):
    """A picture: `name` says which, `alt` says its content to who cannot see it."""

    name: str
    alt: str
    caption: str


class Preformatted(NamedTuple):
    """Text whose line breaks and spaces count."""

    text: str


class Verdict(NamedTuple):
    """The answer, before everything else."""

    outcome: str
    """helped, hurt or undecided; untold where nothing was measured that could tell."""
    sentence: str
    tiles: tuple[tuple[str, str], ...] = ()
    """The numbers behind it: `(number, what it is)`."""

    @property
    def parts(self) -> tuple[str, str]:
        """`(what the outcome is, the rest)` of the sentence, to set them apart.

        >>> Verdict("helped", "Transfer helped: it is better.").parts, Verdict("hurt", "It is worse: a lot.").parts
        (('Transfer helped:', 'it is better.'), ('Hurt:', 'It is worse: a lot.'))
        """
        lead, _, rest = self.sentence.partition(": ")
        if rest and self.outcome.lower() in lead.lower():
            return f"{lead}:", rest
        return f"{self.outcome.capitalize()}:", self.sentence


Block = Heading | Paragraph | Picture | Preformatted | Table | Verdict
