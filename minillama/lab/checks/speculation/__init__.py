"""Graded items of lab 15, one subject a module."""
