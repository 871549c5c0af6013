"""Costs of kinds of layers: bytes and times of a step, their formulas in numpy."""
