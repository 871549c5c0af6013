"""What the notebooks are made of: pictures with text twins, panels, predictions, graded checks and records.

from minillama.lab import show, Prediction
from minillama.lab.checks import lab02 as check
"""

from minillama.lab.display import Screen, show
from minillama.lab.panel import Choice, Panel, Slider, Steps, Words
from minillama.lab.picture import Picture
from minillama.lab.predict import Prediction

__all__ = ["Choice", "Panel", "Picture", "Prediction", "Screen", "Slider", "Steps", "Words", "show"]
