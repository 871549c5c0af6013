"""What the notebooks are made of: pictures with text twins, panels, predictions, graded checks and records.

from minillama.lab import show, Prediction
from minillama.lab.checks import lab02 as check
"""

from minillama.lab.grading.prediction import Prediction
from minillama.lab.widgets.figure import Figure
from minillama.lab.widgets.live_figure import LiveFigure, show
from minillama.lab.widgets.panel import Dropdown, IntSlider, Panel, Slider, TextBox

__all__ = ["Dropdown", "Figure", "IntSlider", "LiveFigure", "Panel", "Prediction", "Slider", "TextBox", "show"]
