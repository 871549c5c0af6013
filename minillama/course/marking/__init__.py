"""Marks of submissions: exercises found by cell ids, checked by the package's own checks."""
