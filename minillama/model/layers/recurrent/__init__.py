"""Layers that fold a text into a memory of fixed size."""
