"""Marker symbols of scatter traces as SVG."""

import math

from minillama.lab.svg.svg_elements import element, path


def marker(symbol: str, x: float, y: float, size: float, colour: str, edge: str | None = None, width: float = 0) -> str:
    """A symbol of plotly, centred at a place; an unknown one is a circle."""
    r = size / 2
    if symbol.endswith("-open"):
        fill, stroke, line = "none", colour, 1.5
    else:
        fill, stroke, line = colour, edge, width
    look = {"fill": fill, "stroke": stroke if line else None, "stroke-width": line if line and stroke else None}
    corners = _corners(symbol.removesuffix("-open"), r)
    if corners is None:
        return element("circle", {"cx": x, "cy": y, "r": r, **look})
    return element("path", {"d": path([(x + dx, y + dy) for dx, dy in corners], closed=True), **look})


def _corners(symbol: str, r: float) -> list[tuple[float, float]] | None:
    """Corners of a symbol around (0, 0); None for a circle."""
    if symbol == "square":
        return [(-r, -r), (r, -r), (r, r), (-r, r)]
    if symbol == "diamond":
        return [(0, -1.3 * r), (1.3 * r, 0), (0, 1.3 * r), (-1.3 * r, 0)]
    if symbol == "triangle-up":
        return _polygon(3, 1.2 * r)
    if symbol == "hexagon":
        return _polygon(6, 1.1 * r)
    if symbol == "star":
        return [
            (radius * math.sin(n * math.pi / 5), -radius * math.cos(n * math.pi / 5))
            for n in range(10)
            for radius in (1.4 * r if n % 2 == 0 else 0.55 * r,)
        ]
    if symbol in ("cross", "x"):
        a, b = 0.4 * r, 1.2 * r
        plus = [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
        return plus if symbol == "cross" else [((x - y) * 0.7071, (x + y) * 0.7071) for x, y in plus]
    return None


def _polygon(corners: int, r: float) -> list[tuple[float, float]]:
    turns = [2 * math.pi * n / corners for n in range(corners)]
    return [(r * math.sin(turn), -r * math.cos(turn)) for turn in turns]
