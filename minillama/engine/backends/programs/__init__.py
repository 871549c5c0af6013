"""The programs of a model, defined once for all backends."""
