"""A table and what it becomes: Markdown, LaTeX (booktabs), CSV with every digit, HTML of the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from smooth_attention.core.files import write_text

__all__ = ["Cell", "Column", "Table", "count", "number", "show", "spread", "word", "write_csv"]

Value = str | int | float | None
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "±": r"$\pm$",
        "−": "$-$",
        "²": r"\textsuperscript{2}",
        "–": "--",
    }
)
PROSE = 48  # characters from which a cell of the page breaks its lines
ALIGNED = {"left": ("l", ":--"), "right": ("r", "--:"), "wide": (r"p{0.3\linewidth}", ":--")}


@dataclass(frozen=True, slots=True)
class Cell:
    """An entry: what people read, and the values behind it.

    Attributes:
        text: of all formats but CSV.
        values: of the CSV, one for each name of the column; None is an empty field.
        is_bold: whether it stands out.
    """

    text: str
    values: tuple[Value, ...]
    is_bold: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        title: for people.
        names: of its columns in the CSV.
        align: ``left``, ``right``, or ``wide`` for sentences.
    """

    title: str
    names: tuple[str, ...]
    align: str = "right"


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its convention.

    Attributes:
        name: of its files, without suffix.
        title: what it shows.
        columns: in order.
        rows: of cells, one for each column.
        caption: metrics, protocol, number of trainings and images, what bold means.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str

    def to_markdown(self) -> str:
        lines = [
            join(column.title.replace("|", "\\|") for column in self.columns),
            join(ALIGNED[column.align][1] for column in self.columns),
            *(join(bold(cell, "**{}**", cell.text.replace("|", "\\|")) for cell in row) for row in self.rows),
        ]
        return "\n".join([f"### {self.title}", "", *lines, "", self.caption, ""])

    def to_latex(self) -> str:
        """Return a floating table that needs the packages ``booktabs`` and, for other signs, ``inputenc``."""
        spec = "".join(ALIGNED[column.align][0] for column in self.columns)
        body = [" & ".join(bold(c, "\\textbf{{{}}}", c.text.translate(LATEX)) for c in row) for row in self.rows]
        caption = f"{self.title}. {self.caption}".translate(LATEX)
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{caption}}}",
                rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{{spec}}}",
                r"\toprule",
                " & ".join(column.title.translate(LATEX) for column in self.columns) + r" \\",
                r"\midrule",
                *(f"{line} \\\\" for line in body),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def to_csv(self) -> str:
        header = [name for column in self.columns for name in column.names]
        return write_csv(header, ([value for cell in row for value in cell.values] for row in self.rows))

    def to_html(self) -> Markup:
        """Return title, table and caption as the report shows them; all text is escaped."""
        head = (Markup('<th scope="col"{}>{}</th>').format(html_class(c), c.title) for c in self.columns)
        return Markup(
            '<h3 class="table-title">{title}</h3>\n'
            '<div class="scroll" tabindex="0" role="region" aria-label="{title}">\n'
            "<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
            '<p class="note">{caption}</p>\n'
        ).format(
            title=self.title,
            head=Markup("").join(head),
            body=Markup("").join(Markup("<tr>{}</tr>\n").format(self.row_to_html(row)) for row in self.rows),
            caption=self.caption,
        )

    def row_to_html(self, row: Sequence[Cell]) -> Markup:
        """Return the cells of a row; the first is its heading."""
        cells = [
            Markup("<td{}>{}</td>").format(html_class(column, cell), html_text(cell))
            for column, cell in zip(self.columns[1:], row[1:], strict=True)
        ]
        return Markup('<th scope="row" class="word">{}</th>').format(html_text(row[0])) + Markup("").join(cells)

    def write(self, directory: Path) -> list[Path]:
        """Write the three files and return their paths."""
        texts = {".md": self.to_markdown(), ".tex": self.to_latex(), ".csv": self.to_csv()}
        paths = []
        for suffix, text in texts.items():
            paths.append(directory / f"{self.name}{suffix}")
            write_text(paths[-1], text)
        return paths


def write_csv(header: Sequence[str], rows: Iterable[Sequence[Value]]) -> str:
    """Return CSV with every digit of a number, and empty fields for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def join(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def bold(cell: Cell, template: str, text: str) -> str:
    return template.format(text) if cell.is_bold else text


def html_class(column: Column, cell: Cell | None = None) -> Markup:
    """Return the attribute that lays out a cell: words to the left, long texts over several lines."""
    names = ["word"] * (column.align != "right") + ["prose"] * (cell is not None and len(cell.text) > PROSE)
    return Markup(' class="{}"').format(" ".join(names)) if names else Markup("")


def html_text(cell: Cell) -> Markup:
    return Markup(bold(cell, "<strong>{}</strong>", "{}")).format(cell.text)


def word(text: str) -> Cell:
    return Cell(text, (text,))


def count(value: int) -> Cell:
    return Cell(str(value), (value,))


def number(value: float | None, digits: int = 3, *, scale: float = 1, with_sign: bool = False) -> Cell:
    """Return a number; an undefined one is a dash. The CSV has it unscaled."""
    return Cell(show(value, digits, scale=scale, with_sign=with_sign), (value,))


def spread(values: Iterable[float | None], digits: int = 3) -> Cell:
    """Return mean ± standard deviation of the known values; of one there is no deviation."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    mean = float(np.mean(known)) if known else None
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return Cell(show(mean, digits) + ("" if sd is None else f" ± {show(sd, digits)}"), (mean, sd))


def show(value: float | None, digits: int = 3, *, scale: float = 1, with_sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{scale * value:{'+' if with_sign else ''}.{digits}f}".replace("-", "−")
