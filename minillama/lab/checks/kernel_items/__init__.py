"""Graded items of lab 17."""
