"""torchrun, with a quiet end: `python -m torch_utils.launch [torchrun's options] train.py ...`.

torchrun itself ends an interrupted or refused run with tracebacks of its own and exit code 1. Here the processes'
messages stand alone, and the exit code is theirs: that of the first process to fail, or 130 of an interrupted run.
"""

from __future__ import annotations

import logging
import os
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == "__main__":
    # Until it kills processes that it has asked to stop. An update, an evaluation or a save may have to end before.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    # Its agent's errors repeat, in a page, what the failing process has said.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        main()
    except SignalException:
        sys.exit(130)  # as a run of one process, whatever the signal
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A negative exit code is a signal's number.
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
