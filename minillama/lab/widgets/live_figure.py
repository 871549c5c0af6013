"""Put a picture into a notebook's output and redraw it there later."""

import uuid

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display, update_display

from minillama.lab.widgets.figure import Figure


class LiveFigure:
    """A place in a cell's output that always shows the latest picture.

    The raw mime bundle is published, because plotly's own way of showing a figure loses the display id that `update`
    needs. Outside of a notebook nothing is shown, and `picture` still holds what would have been.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self._id = uuid.uuid4().hex
        if InteractiveShell.initialized():
            display(figure.mime_bundle(), raw=True, display_id=self._id)

    def update(self, figure: Figure) -> None:
        """Draw `picture` in the place of the one before; safe to call from a worker thread."""
        self.figure = figure
        if InteractiveShell.initialized():
            # JupyterLab's plotly renderer ignores a new figure while it shows one; another kind of output in between
            # makes it start afresh. It is as high as the figure, so that the page does not jump.
            height = figure.plotly.layout.height or 360
            gap = {"text/html": f'<div style="height:{height}px"></div>', "text/plain": ""}
            update_display(gap, raw=True, display_id=self._id)
            update_display(figure.mime_bundle(), raw=True, display_id=self._id)


def show(figure: Figure) -> None:
    """Show a picture below the cell."""
    LiveFigure(figure)
