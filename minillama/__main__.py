"""`python -m minillama` is the command `minillama`."""

from minillama.cli import entry

if __name__ == "__main__":
    entry()
