"""Show a figure in a notebook's output and redraw it in place."""

import uuid

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display, update_display

from minillama.lab.widgets.figure import Figure


class LiveFigure:
    """A place in a cell's output that always shows the latest figure.

    This class publishes the raw mime bundle, because plotly's own display function loses the display id that `update`
    needs. Outside of a notebook it shows nothing; `figure` holds the latest figure.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self._id = uuid.uuid4().hex
        if InteractiveShell.initialized():
            display(figure.mime_bundle(), raw=True, display_id=self._id)

    def update(self, figure: Figure) -> None:
        """Replace the figure on the screen. Threads may call this."""
        self.figure = figure
        if InteractiveShell.initialized():
            # JupyterLab's plotly renderer ignores a new figure while it shows one. Another kind of output in between
            # resets the renderer. It has the figure's height, so the page does not jump.
            height = figure.plotly.layout.height or 360
            gap = {"text/html": f'<div style="height:{height}px"></div>', "text/plain": ""}
            update_display(gap, raw=True, display_id=self._id)
            update_display(figure.mime_bundle(), raw=True, display_id=self._id)


def show(figure: Figure) -> None:
    """Show a figure below the cell."""
    LiveFigure(figure)
