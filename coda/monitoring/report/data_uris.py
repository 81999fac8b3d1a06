"""Pictures as data URIs: nothing in a report is fetched from anywhere, so it opens on a machine without a network."""

import base64
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}
"""How all figures look."""

DPI = 110

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31")
"""Categories, told apart with every common kind of colour blindness (after Okabe and Ito)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""A second sign beside the colour, for black-and-white prints."""

GREY = "#b5bac1"


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        uri: The picture itself as ``data:image/png;base64,...``.
        alt: What it shows, for people who cannot see it.
        width: Width in pixels.
        height: Height in pixels.
    """

    uri: str
    alt: str
    width: int
    height: int

    @property
    def png(self) -> bytes:
        """The picture as the bytes of a file."""
        return base64.b64decode(self.uri.partition(",")[2])


def figure(width_in: float, height_in: float, *, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Return an empty figure of this size in inches that belongs to no window and no global state."""
    with rc_context(STYLE):
        return Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout)


def from_figure(drawn: Figure, alt: str) -> Picture:
    """Draw a figure into a picture."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI)
    width, height = drawn.canvas.get_width_height()
    return Picture(_uri(buffer.getvalue()), alt, width, height)


def from_pixels(rgb: NDArray[np.uint8], alt: str) -> Picture:
    """Turn an image into a picture.

    Args:
        rgb: uint8, shape (height, width, 3).
        alt: What it shows.
    """
    buffer = io.BytesIO()
    imsave(buffer, rgb, format="png")
    return Picture(_uri(buffer.getvalue()), alt, rgb.shape[1], rgb.shape[0])


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def style() -> Any:
    """Return a context in which axes are made in the report's style."""
    return rc_context(STYLE)
