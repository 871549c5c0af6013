"""The graded exercises, one module a lab; every check has inputs of its own that the notebook does not show."""
