"""A folder that installs minillama and the labs without a network."""
