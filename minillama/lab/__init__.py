"""Parts of the lab notebooks: figures, panels, predictions, graded checks and records.

Read `llama_numpy.py` first: a whole Llama in plain numpy.

from minillama.lab import show, Prediction
from minillama.lab.checks import lab02 as check
"""

from minillama.lab.grading.prediction import Prediction
from minillama.lab.widgets.controls import Dropdown, IntSlider, Slider, TextBox
from minillama.lab.widgets.figure import Figure
from minillama.lab.widgets.live_figure import LiveFigure, show
from minillama.lab.widgets.panel import Panel
from minillama.lab.widgets.running_line import collect, running

__all__ = [
    "Dropdown", "Figure", "IntSlider", "LiveFigure", "Panel", "Prediction", "Slider", "TextBox", "collect", "running",
    "show",
]  # fmt: skip
