"""Graded items of lab 16, by their formulas."""
