"""Entry point of `python -m minillama`, the same as the command `minillama`."""

from minillama.cli import entry

if __name__ == "__main__":
    entry()
