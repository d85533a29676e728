"""What a test of concepts found: one row for each concept and tap, as text and in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gradtap import errors
from gradtap.html_table import html_table

_Array: TypeAlias = np.ndarray[Any, Any]

_COLUMNS = ("concept", "tap", "score", "+/-", "random", "p", "p corrected", "significant", "accuracy")


@dataclass(frozen=True, eq=False)
class ConceptScore:
    """How a target depends on a concept at one tap; see `gradtap.concepts.tcav`.

    Args:
      concept: Its name.
      tap: The address.
      scores: The share of inputs whose target rises along the concept, against each random set, ``(sets,)``.
      random: What they are compared with, ``(sets,)``: scores of random sets in the place of the concept.
      accuracy: Of the concept's vectors on held-out examples, the mean over the random sets; 0.5 is chance.
      p_value: Of the two-sided test, for this row alone.
      p_corrected: The same by Holm's correction for all rows of the result.
      significant: Whether that is at most alpha.
    """

    concept: str
    tap: str
    scores: _Array
    random: _Array
    accuracy: float
    p_value: float
    p_corrected: float
    significant: bool

    @property
    def score(self) -> float:
        """The mean of the scores: 1 where every input's target rises along the concept, 0 where every one falls."""
        return float(np.mean(self.scores))

    def __repr__(self) -> str:
        return (
            f"ConceptScore({self.concept!r}, {self.tap!r}, score {self.score:.2f}, "
            f"p {self.p_value:.3g}, corrected {self.p_corrected:.3g})"
        )

    def cells(self) -> tuple[str, ...]:
        """The row as it is printed."""
        return (
            self.concept,
            self.tap,
            f"{self.score:.2f}",
            f"{np.std(self.scores):.2f}",
            f"{np.mean(self.random):.2f}",
            f"{self.p_value:.2g}",
            f"{self.p_corrected:.2g}",
            "yes" if self.significant else "no",
            f"{self.accuracy:.2f}",
        )


class ConceptTest(Sequence[ConceptScore]):
    """The rows of `gradtap.concepts.tcav`, by tap and then by concept; prints as a table.

    Args:
      rows: A `ConceptScore` for each concept and tap.
      alpha: The chance of any false alarm among them that was allowed.
      target: What was differentiated.
    """

    def __init__(self, rows: Sequence[ConceptScore], alpha: float, target: str) -> None:
        self.rows = list(rows)
        self.alpha = alpha
        self.target = target

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ConceptScore]:
        return iter(self.rows)

    def of(self, concept: str, tap: str | None = None) -> ConceptScore:
        """The row of a concept; the tap may be left out where there is one.

        Raises:
          MissingResultError: There is no such row, or there are several.
        """
        found = [row for row in self.rows if row.concept == concept and tap in (None, row.tap)]
        if len(found) != 1:
            raise errors.MissingResultError(
                f"{len(found) or 'no'} rows are of {concept!r}" + (f" at {tap!r}." if tap is not None else "."),
                [("it holds", ", ".join(f"({row.concept!r}, {row.tap!r})" for row in self.rows[:12]))],
                "name a concept and a tap of these",
            )
        return found[0]

    def table(self) -> str:
        """All rows as text."""
        lines = [_COLUMNS, *(row.cells() for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
        texts = ("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
        return "\n".join(texts)

    __repr__ = table

    def _repr_html_(self) -> str:
        rows = [row.cells() for row in self.rows]
        return html_table(_COLUMNS, rows, caption=f"{self.target}, alpha {self.alpha:g}")
