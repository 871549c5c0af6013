"""Load on a server, and the speed that each of its users gets."""
