"""Graded exercises, one module per lab; each check has its own hidden inputs."""
