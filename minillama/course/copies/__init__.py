"""Copies of the labs to hand out and to grade."""
