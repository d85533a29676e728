"""What panels are put on: a figure of its own, or a part of somebody's axes. All lengths are in inches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradtap.errors import MissingExtraError
from gradtap.plot.lettering import broken, inches
from gradtap.plot.panels import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Canvas:
    """An area on which panels lie.

    Args:
      width: Of the area.
      height: Of the area.
      ax: Axes that are to hold it, whose own frame is taken away; None for a new figure of this size.
      text: What `text_factor` gave: how many times larger the room for text is than in a figure of its own.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """

    def __init__(self, width: float, height: float, ax: Axes | None = None, text: float = 1.0) -> None:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingExtraError.of("viz", "drawing a picture") from None
        self._on: Any = ax
        self._own = ax is None
        if ax is None:
            self._on = Figure(figsize=(width, height), dpi=120, facecolor="white")
            room = width, height
        else:
            ax.set_axis_off()
            room = inches(ax)
        # In somebody's axes all is made smaller or larger alike, and stands in the middle.
        self._scale = min(room[0] / width, room[1] / height)
        self._room = room
        self._size = width, height
        #: How large text and its distances are, of what they are in a figure of its own.
        self.by = min(self._scale * text, 1.0)
        self._corner = (room[0] - width * self._scale) / 2, (room[1] - height * self._scale) / 2

    @property
    def figure(self) -> Figure:
        """The whole figure."""
        figure: Figure = self._on if self._own else self._on.get_figure(root=True)
        return figure

    def panel(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes with their lower left corner at a place."""
        size = width * self._scale / self._room[0], height * self._scale / self._room[1]
        box = (*self._place(left, bottom), *size)
        axes: Axes = self._on.add_axes(box) if self._own else self._on.inset_axes(box)
        return axes

    def _place(self, left: float, bottom: float) -> tuple[float, float]:
        x, y = self._corner
        return (x + left * self._scale) / self._room[0], (y + bottom * self._scale) / self._room[1]

    def title(self, text: str, size: float = 12) -> None:
        """Write a line above everything: at the top of a figure of its own, above the area in somebody's axes."""
        if self._own:
            self.write(text, self._size[0] / 2, self._size[1] - 0.2, size=size, room=self._size[0] - 0.1)
        elif text:
            # Of its full size, as the titles of the axes beside it.
            lines = "\n".join(broken(text, self._room[0] * 72, size, 2))
            x, y = self._place(self._size[0] / 2, self._size[1])
            how = {"ha": "center", "va": "bottom", "fontsize": size, "color": INK, "parse_math": False}
            self._on.text(x, y + 0.04 / self._room[1], lines, transform=self._on.transAxes, zorder=10, **how)

    def fit(self, text: str, room: float, size: float, lines: int = 1) -> str:
        """Break text into so many lines of a width, and cut the rest."""
        return "\n".join(broken(text, room * self._scale * 72, size * self.by, lines))

    def write(
        self,
        text: str,
        left: float,
        bottom: float,
        *,
        size: float,
        faint: bool = False,
        ha: str = "center",
        va: str = "center",
        family: str | None = None,
        room: float | None = None,
        lines: int = 1,
    ) -> None:
        """Write text at a place, broken into so many lines of a width where one is given."""
        text = text if room is None else self.fit(text, room, size, lines)
        self._on.text(
            *self._place(left, bottom),
            text,
            ha=ha,
            va=va,
            fontsize=size * self.by,
            color=FAINT if faint else INK,
            family=family,
            transform=self._on.transFigure if self._own else self._on.transAxes,
            zorder=10,  # above the panels, which stand at 5 in somebody's axes
            # An address may hold a dollar sign, which would start a formula.
            parse_math=False,
        )
