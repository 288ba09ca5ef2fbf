"""What a part of the results page is made of: tables and sentences, kept as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from models.training.metrics import Score


def written(score: Score, form: str = ".1%") -> str:
    """A score with its 95 % interval.

    >>> written(Score(0.5, 0.4, 0.6, 10, 10, "Wilson"))
    '50.0% (40.0% to 60.0%)'
    """
    value = format(score.value, form)
    if score.low is None or score.high is None:
        return value
    return f"{value} ({format(score.low, form)} to {format(score.high, form)})"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    title : above it.
    header : of its columns.
    rows : cells, as many as there are columns.
    notes : sentences below.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [" | ".join(self.header), " | ".join("---" for _ in self.header)]
        lines += [" | ".join(row) for row in self.rows]
        table = "\n".join(f"| {line} |" for line in lines)
        return "\n\n".join([f"### {self.title}", table, *self.notes])


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the page.

    Attributes
    ----------
    title : its heading.
    tables : what was measured.
    values : the same as numbers, for programs.
    """

    title: str
    tables: Sequence[Table]
    values: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """The part as Markdown."""
        return "\n\n".join([f"## {self.title}", *(table.markdown() for table in self.tables)])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        tables = [Table(**table) for table in data["tables"]]
        return cls(data["title"], tables, data["values"])
