"""How nbval compares notebooks: `pytest --nbval-lax labs/solutions` checks cells tagged `nbval-check-output`."""

# A figure's JSON holds times and rounding of the machine it was drawn on; the text twin beside it is what is compared.
SKIP_COMPARE = ("application/vnd.plotly.v1+json",)


def pytest_collectstart(collector):
    """Widen nbval's list of what is not compared; every other kind of collector is left alone."""
    if collector.path is not None and collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += SKIP_COMPARE
