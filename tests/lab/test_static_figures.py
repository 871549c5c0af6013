"""Figures without JavaScript: images that agree with the numbers, in exported and executed notebooks."""

import base64
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest

from minillama.lab import Figure, build
from minillama.lab.plots import lab_plots, measurement_plots
from minillama.lab.svg.static_figure import WIDTH, figure_svg
from minillama.lab.svg.svg_elements import text_width
from minillama.lab.svg.treemap import squarify
from minillama.lab.widgets.figure import PLOTLY_MIME, apply_layout

SVG = "{http://www.w3.org/2000/svg}"
Document = ElementTree.Element


def drawn(figure: go.Figure) -> Document:
    """The figure's SVG, parsed."""
    svg = figure_svg(figure)
    assert svg is not None
    return ElementTree.fromstring(svg)


def texts(document: Document) -> list[str]:
    return ["".join(found.itertext()) for found in document.iter(f"{SVG}text")]


def boxes(document: Document, fill: str) -> list[dict[str, float]]:
    """Rectangles of a colour outside of the definitions, with numbers as attributes."""
    found = [each for each in document.findall(f"{SVG}rect") if each.get("fill") == fill]
    return [{name: float(each.get(name, "0")) for name in ("x", "y", "width", "height")} for each in found]


def test_bars_have_the_length_of_their_values() -> None:
    for values in ([10.0, 20.0, 40.0], [0.0, 3.0, 1.5]):
        document = drawn(lab_plots.bars(["a", "b", "c"], values, "Three", "ms").plotly)
        widths = [box["width"] for box in boxes(document, "#0072B2")]
        assert np.allclose(np.array(widths) / max(widths), np.array(values) / max(values), atol=0.002)
        assert {"Three", "ms", "a", "b", "c"} <= set(texts(document))
        assert WIDTH * 0.6 < max(widths) < WIDTH


def test_bars_on_a_logarithmic_axis_and_with_a_base() -> None:
    figure = lab_plots.bars(["a", "b", "c"], [1.0, 10.0, 1000.0], "Log", "s", logarithmic=True).plotly
    widths = [box["width"] for box in boxes(drawn(figure), "#0072B2")]
    assert (widths[2] - widths[1]) / (widths[1] - widths[0]) == pytest.approx(2.0, abs=0.01)
    floating = go.Figure(go.Bar(x=["a", "b"], y=[2.0, 3.0], base=[1.0, 0.0], marker={"color": "#0072B2"}))
    one, other = boxes(drawn(floating), "#0072B2")
    assert one["height"] / other["height"] == pytest.approx(2 / 3, abs=0.01)
    assert one["y"] == pytest.approx(other["y"], abs=0.2), "1 + 2 and 0 + 3 end at one height"


def test_traces_share_a_category_only_where_they_meet() -> None:
    """As in plotly: bars of two traces stand side by side where both have one, else each has the full width."""
    apart = go.Figure(
        [go.Bar(x=["a"], y=[1], marker={"color": "red"}), go.Bar(x=["b"], y=[1], marker={"color": "blue"})]
    )
    together = go.Figure(
        [go.Bar(x=["a"], y=[1], marker={"color": "red"}), go.Bar(x=["a"], y=[1], marker={"color": "blue"})]
    )
    (alone,), (left,), (right,) = (
        boxes(drawn(apart), "red"),
        boxes(drawn(together), "red"),
        boxes(drawn(together), "blue"),
    )
    assert left["x"] + left["width"] == pytest.approx(right["x"], abs=0.2)
    stacked = go.Figure(together).update_layout(barmode="stack")
    (low,), (high,) = boxes(drawn(stacked), "red"), boxes(drawn(stacked), "blue")
    assert high["y"] + high["height"] == pytest.approx(low["y"], abs=0.2) and high["x"] == low["x"]
    assert alone["width"] > 0


def test_lines_and_markers_are_where_their_values_are() -> None:
    figure = go.Figure(go.Scatter(x=[0, 1, 4], y=[0, None, 8], mode="lines+markers", name="one"))
    figure.update_xaxes(range=[0, 4]).update_yaxes(range=[8, 0])  # a range that is turned round
    document = drawn(figure)
    circles = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in document.iter(f"{SVG}circle")]
    (line,) = [each for each in document.findall(f"{SVG}path") if each.get("clip-path")]
    assert len(circles) == 2 and circles[0][0] < circles[1][0] and circles[0][1] < circles[1][1]
    assert re.sub(r"[\d. ]+", "", line.get("d", "")) == "MM", "the missing value interrupts the line"


def test_heat_map_colours_and_empty_cells() -> None:
    values = {("r1", "c1"): 1.0, ("r1", "c2"): 2.0, ("r2", "c1"): 4.0}
    document = drawn(measurement_plots.heat_map(["r1", "r2"], ["c1", "c2"], values, "Map", "x", "y").plotly)
    cells = [each for each in document.findall(f"{SVG}rect") if each.get("fill") not in ("white", None)]
    assert len(cells) == 3 and len({each.get("fill") for each in cells}) == 3
    assert boxes(document, "#FEE838"), "the largest value has the last colour of Cividis"
    assert any("4" in text for text in texts(document))


def test_treemap_areas_are_proportional() -> None:
    parts = squarify([6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0], (0.0, 0.0, 60.0, 40.0))
    assert [width * height for _, _, width, height in parts] == pytest.approx([600, 600, 400, 300, 200, 200, 100])
    assert max(max(w / h, h / w) for _, _, w, h in parts) < 3
    sizes = {"blk.0.a.weight": 10, "blk.0.b.weight": 10, "norm": 5}
    shown = texts(drawn(lab_plots.treemap(sizes, dict.fromkeys(sizes, "Q8_0"), "Model").plotly))
    assert {"Model", "blk.0", "a.weight · Q8_0"} <= set(shown)


def test_legend_of_several_lines_has_room_below_the_title() -> None:
    """In a window of 1000 pixels plotly breaks a long legend into lines."""
    short, long = ({name: [1.0] for name in names} for names in (("a", "b"), ("a long name of a curve", "b", "c", "d")))
    one, two = (lab_plots.lines(series, ["0"], "Lines", "x", "y").plotly.layout for series in (short, long))
    assert two.margin.t - one.margin.t == two.height - one.height == 19
    again = Figure(lab_plots.lines(long, ["0"], "Lines", "x", "y").plotly, "the same").plotly.layout
    assert (again.height, again.margin.t) == (two.height, two.margin.t), "room is made once"


def test_negative_prediction_has_room_for_its_number() -> None:
    layout = lab_plots.prediction_bars("Less", "%", 10.0, -1.0, None).plotly.layout
    low, high = layout.xaxis.range
    assert low < -1.0 - 0.1 * 11 and high > 10.0
    assert lab_plots.prediction_bars("More", "%", 10.0, 1.0, None).plotly.layout.xaxis.range is None


def test_hostile_names_stay_text() -> None:
    """Pieces of tokens hold anything: markup, control characters, half of a surrogate pair."""
    names = ["<script>alert(1)</script>", "\x00\x1b[31m", "\ud800", "a & b", "你好", "<b>bold</b>"]
    document = drawn(lab_plots.bars(names, [1.0] * 6, "</svg><script>", "x").plotly)
    assert not [each for each in document.iter() if each.tag.endswith("script")]
    assert {"<script>alert(1)</script>", "a & b", "你好", "bold"} <= set(texts(document))
    page = lab_plots.bars(names, [1.0] * 6, '"><script>', "x").static_html()
    assert "<script" not in page and not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)", image_of(page))
    assert text_width("你好", 10) == 20 > text_width("ab", 10)


def image_of(page: str) -> str:
    """The SVG in an alternative."""
    (encoded,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return base64.b64decode(encoded).decode()


def test_figures_of_other_kinds_keep_their_text() -> None:
    pie = Figure(go.Figure(go.Pie(labels=["a"], values=[1])), "Pie\n1 <of> 1")
    assert figure_svg(pie.plotly) is None
    assert pie.mime_bundle()["text/html"] == "<pre>Pie\n1 &lt;of&gt; 1</pre>"
    two = go.Figure([go.Scatter(y=[1]), go.Scatter(y=[2], yaxis="y2")])
    assert figure_svg(two.update_layout(yaxis2={"overlaying": "y"})) is None


@pytest.mark.parametrize("data", [[], [go.Scatter(x=[], y=[])], [go.Scatter(x=[1], y=[float("nan")])],
                                  [go.Bar(x=["a"], y=[None])], [go.Bar(x=[1], y=[1])], [go.Heatmap(z=[[None]])],
                                  [go.Scatter(x=[1, 2], y=[5, 5], text=["t", None], mode="markers+text")]])  # fmt: skip
@pytest.mark.parametrize("kind", ["linear", "log"])
def test_figures_with_nothing_to_show(data: list, kind: str) -> None:
    figure = apply_layout(go.Figure(data), "Empty")
    if not isinstance(next(iter(data), None), go.Heatmap):
        figure.update_yaxes(type=kind)
    svg = figure_svg(figure)
    assert svg is not None and "nan" not in svg and "inf" not in svg
    ElementTree.fromstring(svg)


@pytest.mark.parametrize("source", build.sources(), ids=lambda source: source.stem[:2])
def test_solutions_store_an_image_of_each_figure(source: Path) -> None:
    """The builder's alternative of the stored figure, so that a code host shows it."""
    notebook = nbformat.read(build.solution_path(source), as_version=4)
    stored = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    figures = [data for data in stored if PLOTLY_MIME in data]
    assert figures
    for data in figures:
        assert data["text/html"] == Figure(go.Figure(data[PLOTLY_MIME]), data["text/plain"]).static_html()
        ElementTree.fromstring(image_of(data["text/html"]))
        assert len(data["text/html"]) < 32_000


def test_exported_page_shows_every_figure() -> None:
    """`jupyter nbconvert --to html`, without execution: an image and its text for each figure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nbconvert's own dependencies
        from nbconvert import HTMLExporter

        page, _ = HTMLExporter().from_filename(str(build.solution_path(build.sources(wanted=["00"])[0])))
    assert len(re.findall(r'<img alt="[^"]+"[^>]*src="data:image/svg\+xml;base64,', page)) == 3
    assert page.count("<summary>Text alternative</summary>") == 3
