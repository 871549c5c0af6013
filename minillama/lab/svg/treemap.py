"""A treemap as SVG: squarified rectangles, nested by their parents."""

from collections.abc import Sequence

import plotly.graph_objects as go

from minillama.lab.svg.svg_elements import element, plain, text_width, words

Box = tuple[float, float, float, float]  # left, top, width, height
HEAD, NAME_SIZE = 18.0, 11.0  # pixels of a group's name, and of its letters


def treemap_markup(trace: go.Treemap, box: Box) -> list[str]:
    """The rectangles of a treemap in a box, with the names that fit."""
    ids = list(trace.ids if trace.ids is not None else trace.labels)
    children: dict[str, list[int]] = {}
    for index, parent in enumerate(trace.parents):
        children.setdefault(parent, []).append(index)
    made: list[str] = []

    def draw(index: int, place: Box) -> None:
        left, top, width, height = place
        colours = trace.marker.colors
        look = {"fill": colours[index] if colours is not None else "#F2F2F2", "stroke": "white"}
        made.append(element("rect", {"x": left, "y": top, "width": width, "height": height, **look}))
        if height >= 16 and (name := cut_to_width(plain(trace.labels[index]), width - 8)):
            made.append(words(left + 4, top + 13, name, size=NAME_SIZE))
        inner = children.get(ids[index], [])
        if inner and width > 4 and height > HEAD + 4:
            largest_first = sorted(inner, key=lambda child: -trace.values[child])
            inside = (left + 2, top + HEAD, width - 4, height - HEAD - 2)
            sizes = [float(trace.values[child]) for child in largest_first]
            for child, part in zip(largest_first, squarify(sizes, inside), strict=True):
                draw(child, part)

    for root in children.get("", []):
        draw(root, box)
    return made


def cut_to_width(name: str, width: float) -> str:
    """The name, cut to a width in pixels; empty if fewer than three characters fit."""
    if text_width(name, NAME_SIZE) <= width:
        return name
    kept = next((n for n in range(len(name) - 1, 2, -1) if text_width(name[:n] + "…", NAME_SIZE) <= width), 0)
    return name[:kept] + "…" if kept else ""


def squarify(sizes: Sequence[float], box: Box) -> list[Box]:
    """Rectangles with areas in proportion to descending sizes, as square as possible (Bruls et al., 2000)."""
    if not sizes:
        return []
    left, top, width, height = box
    scale = width * height / (sum(sizes) or 1.0)
    areas = [size * scale for size in sizes]
    side = min(width, height)
    count = 1
    while count < len(areas) and _worst(areas[: count + 1], side) <= _worst(areas[:count], side):
        count += 1
    thick = sum(areas[:count]) / side if side else 0.0
    made, at = [], 0.0
    for area in areas[:count]:
        long = area / thick if thick else 0.0
        made.append((left, top + at, thick, long) if width >= height else (left + at, top, long, thick))
        at += long
    rest = (left + thick, top, width - thick, height) if width >= height else (left, top + thick, width, height - thick)
    return made + squarify(sizes[count:], rest)


def _worst(areas: Sequence[float], side: float) -> float:
    """Largest ratio of sides in a row."""
    total = sum(areas)
    if not total or not side or not min(areas):
        return float("inf")
    return max(side**2 * max(areas) / total**2, total**2 / (side**2 * min(areas)))
