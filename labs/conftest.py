"""Settings of nbval: `pytest --nbval-lax labs/solutions` checks cells tagged `nbval-check-output`."""

# A figure's JSON and image have times and rounding of one machine; nbval compares the text alternative.
SKIP_COMPARE = ("application/vnd.plotly.v1+json", "text/html")


def pytest_collectstart(collector):
    """Extend nbval's list of mime types that are not compared."""
    if collector.path is not None and collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += SKIP_COMPARE
