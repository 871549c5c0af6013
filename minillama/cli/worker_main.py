"""The process that `minillama worker` starts for each leader: `python -m minillama.cli.worker_main --fd N`.

N is the file descriptor of the connection to the leader. stderr is the worker's terminal; the last error also goes to
the leader.
"""

import argparse
import logging
import os
import sys

from minillama.cli.output.terminal import note
from minillama.cli.translation.command_texts import error_text
from minillama.errors import MinillamaError


def main() -> int:
    """Serve one leader until it disconnects."""
    parser = argparse.ArgumentParser(prog="minillama.cli.worker_main")
    parser.add_argument("--fd", type=int, required=True)
    logging.basicConfig(format="minillama: %(message)s", level=logging.WARNING)
    from minillama.parallel.workers.worker_process import join_group

    try:
        joined = join_group(parser.parse_args().fd)
        from minillama.engine.backends.remote_worker import follow

        follow(joined)
    except MinillamaError as error:
        note(f"minillama: error: {error_text(str(error))}")
        return 2
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a normal exit would wait for the other processes of the group
