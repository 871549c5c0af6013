"""What the notebooks are made of: pictures with text twins, panels, predictions, graded checks and records.

from minillama.lab import show, Prediction
from minillama.lab.checks import lab02 as check
"""

from minillama.lab.grading.prediction import Prediction
from minillama.lab.widgets.figure import Picture
from minillama.lab.widgets.live_figure import Screen, show
from minillama.lab.widgets.panel import Choice, Panel, Slider, Steps, Words

__all__ = ["Choice", "Panel", "Picture", "Prediction", "Screen", "Slider", "Steps", "Words", "show"]
