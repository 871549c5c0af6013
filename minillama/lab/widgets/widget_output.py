"""Show widgets, with a text for viewers without them and a note without a kernel."""

import html

import ipywidgets as widgets
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from minillama.lab.language import message, translate

RUN_IT = message("run this notebook in Jupyter to use them")
GONE = message(
    "These controls do nothing: the kernel that made them has ended. Run the cells above and this one again."
)
# Jupyter's own class marks a widget without a kernel: after a restart, or from a notebook's stored widget state.
SHEET = """<style>
.minillama-form > .minillama-gone { display: none !important; }
.minillama-form.jupyter-widgets-disconnected > .minillama-gone {
  display: block !important; height: auto; padding: 2px 12px; border-left: 4px solid #D55E00; line-height: 1.5;
}
.minillama-form.jupyter-widgets-disconnected > :not(.minillama-gone) { opacity: 0.5; }
.minillama-form.jupyter-widgets-disconnected :is(button, select, .noUi-target) { pointer-events: none; }
.minillama-form.jupyter-widgets-disconnected::before,
.minillama-form.jupyter-widgets-disconnected .jupyter-widgets-disconnected::before { content: none; }
</style>"""


def display_widget(widget: widgets.Widget, text: str) -> None:
    """Show a widget below the cell, or `text` in viewers without widgets.

    Outside of a notebook show nothing."""
    if InteractiveShell.initialized():
        display({**widget._repr_mimebundle_(), "text/plain": text}, raw=True)


def display_form(form: widgets.Widget, text: str) -> None:
    """Show a widget with buttons; a note appears below it when its kernel ends.

    A text that was typed can still be copied then. In viewers without widgets show `text`."""
    gone = widgets.HTML(SHEET + html.escape(translate(GONE))).add_class("minillama-gone")
    layout = widgets.Layout(overflow="visible")  # the help of a control lies over the page
    display_widget(widgets.VBox([form, gone], layout=layout).add_class("minillama-form"), text)
