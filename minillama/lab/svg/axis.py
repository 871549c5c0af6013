"""Axes of a static figure: range, ticks and labels, with plotly's rules."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from minillama.lab.svg.svg_elements import plain

Settings = go.layout.XAxis | go.layout.YAxis
Tick = tuple[float, str]  # place in units of the axis, label
NAN = float("nan")


@dataclass(frozen=True)
class Axis:
    """The ends of an axis in its units: values, their log10, or indices of categories."""

    low: float
    high: float
    logarithmic: bool
    categories: dict[str, int]

    def units(self, value: object) -> float:
        """A value in units of the axis; nan if it has no place there."""
        if self.categories:
            return float(self.categories.get(str(value), NAN))
        number = as_number(value)
        if self.logarithmic:
            return math.log10(number) if number > 0 else NAN
        return number

    def fraction(self, units: float) -> float:
        """0 at `low`, 1 at `high`."""
        return (units - self.low) / (self.high - self.low)


def as_number(value: object) -> float:
    """A value as a float; nan if it is none, as for plotly."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return NAN


def axis_scale(settings: Settings, values: Sequence[object]) -> Axis:
    """The axis of these values, without a range: its kind and its categories."""
    texts = [value for value in values if isinstance(value, str)]
    named = settings.type == "category" or (settings.type is None and any(math.isnan(as_number(t)) for t in texts))
    categories = {name: place for place, name in enumerate(dict.fromkeys(map(str, values)))} if named else {}
    return Axis(0.0, 1.0, settings.type == "log", categories)


def with_range(scale: Axis, settings: Settings, ends: Iterable[float], padding: float) -> Axis:
    """The axis with plotly's range of it, or around `ends` (in units of the axis).

    padding: free space at each side, as a part of the range.
    """
    if settings.range is not None and None not in settings.range:
        low, high = map(float, settings.range)
        return Axis(low, high, scale.logarithmic, scale.categories)
    known = [end for end in ends if math.isfinite(end)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if scale.categories:
        low, high = min(low, -0.5), max(high, len(scale.categories) - 0.5)
    else:
        space = (high - low) * padding
        low, high = (low if low == 0 else low - space), (high if high == 0 else high + space)
        if settings.rangemode == "tozero" and not scale.logarithmic:
            low, high = min(low, 0.0), max(high, 0.0)
    if settings.autorange == "reversed":
        low, high = high, low
    return Axis(low, high, scale.logarithmic, scale.categories)


def ticks(axis: Axis, settings: Settings, most: int) -> list[Tick]:
    """The ticks in range, about `most` of them."""
    if settings.visible is False or settings.showticklabels is False:
        return []
    if settings.tickvals is not None:
        labels = (
            settings.ticktext if settings.ticktext is not None else [_label(v, settings) for v in settings.tickvals]
        )
        found = [(axis.units(value), plain(label)) for value, label in zip(settings.tickvals, labels, strict=False)]
    elif axis.categories:
        step = max(1, math.ceil(len(axis.categories) / most))
        found = [(float(place), plain(name)) for name, place in axis.categories.items() if place % step == 0]
    elif axis.logarithmic:
        found = [(math.log10(value), _label(value, settings)) for value in _log_ticks(axis, settings, most)]
    else:
        found = [(value, _label(value, settings)) for value in _linear_ticks(axis, settings, most)]
    low, high = sorted((axis.low, axis.high))
    edge = (high - low) * 1e-6
    return [(place, label) for place, label in found if low - edge <= place <= high + edge]


def _linear_ticks(axis: Axis, settings: Settings, most: int) -> list[float]:
    low, high = sorted((axis.low, axis.high))
    step = as_number(settings.dtick)
    if not step > 0 or (high - low) / step > 200:
        step = nice_step((high - low) / most)
    return [round(n * step, 12) for n in range(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1)]


def _log_ticks(axis: Axis, settings: Settings, most: int) -> list[float]:
    low, high = sorted((axis.low, axis.high))
    digits = {"D1": range(1, 10), "D2": (1, 2, 5)}.get(str(settings.dtick))
    if digits is None and settings.dtick is None and high - low < 2:
        digits = (1, 2, 5)
    if digits is None:
        step = max(1, round(as_number(settings.dtick)) if as_number(settings.dtick) > 0 else 1)
        step *= max(1, math.ceil((high - low) / step / most))
        first = math.ceil(low / step - 1e-6)
        return [10.0 ** (n * step) for n in range(first, math.floor(high / step + 1e-6) + 1)]
    return [digit * 10.0**decade for decade in range(math.floor(low), math.floor(high) + 1) for digit in digits]


def nice_step(rough: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 and math.isfinite(rough) else 1.0
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _label(value: object, settings: Settings) -> str:
    number = as_number(value)
    if settings.tickformat:
        try:
            return format(number, settings.tickformat)
        except ValueError:  # a format of d3 that Python does not have
            pass
    if number != number:
        return plain(value)
    if settings.exponentformat == "power" and settings.type == "log" and number > 0:
        return _power(number)
    size = abs(number)
    if size >= 10_000 and settings.exponentformat != "none":
        factor, suffix = next((f, s) for f, s in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if size >= f)
        return f"{number / factor:.4g}{suffix}".replace("-", "−")
    whole = size >= 1000 or size == 0
    return (f"{number:.0f}" if whole else f"{number:.6g}").replace("-", "−")


def _power(number: float) -> str:
    exponent = math.floor(math.log10(number) + 1e-9)
    digit = number / 10.0**exponent
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if abs(digit - 1) < 1e-6 else f"{digit:.3g}×10{raised}"
