"""Show widgets, with a text for viewers that have none."""

import ipywidgets as widgets
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from minillama.lab.language import message

RUN_IT = message("run this notebook in Jupyter to use them")


def display_widget(widget: widgets.Widget, text: str) -> None:
    """Show a widget below the cell, or `text` in viewers without widgets.

    Outside of a notebook show nothing."""
    if InteractiveShell.initialized():
        display({**widget._repr_mimebundle_(), "text/plain": text}, raw=True)
