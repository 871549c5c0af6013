"""SVG elements as text, and an estimate of a text's width."""

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence

FONT = "Inter, Helvetica, Arial, Noto Sans CJK SC, sans-serif"
MONOSPACE = "ui-monospace, Menlo, Consolas, monospace"
INK, LINE_HEIGHT = "#222222", 1.25
DASHES = {"dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdash": "12 4", "longdashdot": "12 3 2 3"}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0

Attribute = str | float | None


def element(tag: str, attributes: Mapping[str, Attribute], content: str = "") -> str:
    """One element; `content` is markup. An attribute that is None is left out."""
    written = "".join(f' {name}="{_value(value)}"' for name, value in attributes.items() if value is not None)
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return escape(value)
    return f"{value:.1f}".removesuffix(".0")


def escape(text: str) -> str:
    """Text for an XML document, without the characters that XML forbids."""
    return html.escape(_FORBIDDEN.sub("\ufffd", text))


def plain(markup: object) -> str:
    """A plotly text without its HTML tags; `<br>` becomes a line end."""
    lines = re.sub(r"<br\s*/?>", "\n", str(markup))
    return html.unescape(re.sub(r"</?(b|i|em|strong|sub|sup|span|a)\b[^>]*>", "", lines))


def text_width(text: str, size: float) -> float:
    """Width of a text in pixels, estimated without a font; CJK characters are square."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return size * (wide + 0.56 * (len(text) - wide))


def words(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: float = 12,
    colour: str = INK,
    middle: bool = False,
    turn: float = 0,
    font: str | None = None,
) -> str:
    """A text at a place.

    middle: `y` is its centre, not its base line. turn: degrees, clockwise."""
    lines = text.split("\n")
    step = size * LINE_HEIGHT
    base = y + 0.35 * size - step * (len(lines) - 1) / 2 if middle else y
    attributes = {
        "x": x, "y": base, "text-anchor": anchor if anchor != "start" else None, "font-size": size,
        "fill": colour if colour != INK else None, "font-family": font,
        "transform": f"rotate({turn:g} {x:.1f} {y:.1f})" if turn else None,
    }  # fmt: skip
    if len(lines) == 1:
        return element("text", attributes, escape(text))
    spans = (element("tspan", {"x": x, "dy": step if n else 0.0}, escape(line)) for n, line in enumerate(lines))
    return element("text", attributes, "".join(spans))


def path(points: Sequence[tuple[float, float]], *, closed: bool = False) -> str:
    """Path data of a line through points; a point with nan interrupts it."""
    made, pen_is_down = [], False
    for x, y in points:
        if x != x or y != y:
            pen_is_down = False
            continue
        made.append(f"{'L' if pen_is_down else 'M'}{_value(x)} {_value(y)}")
        pen_is_down = True
    return "".join(made) + ("Z" if closed and made else "")
