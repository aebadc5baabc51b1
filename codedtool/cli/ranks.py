"""Of several ranks that torchrun started, one prints; and one does all work that is no training."""

from __future__ import annotations

import os
import sys

from codedtool.errors import InputError
from codedtool.training.launch import read_launch

# These commands train, so all ranks run them.
_TRAINING = ("train", "sweep")


def leave_to_rank_0() -> None:
    """End this process with 0 if rank 0 does the command alone; in a training, drop what it prints on stdout.

    So stdout has one result, and one JSON document, whatever number of ranks was started. Rank 0 goes on as it is.
    """
    try:
        launch = read_launch()
    except InputError:
        return  # the command itself says it, if it looks at the ranks
    if launch.rank == 0:
        return
    words = sys.argv[1:]
    if words[:1] and words[0] in _TRAINING:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
        return
    if not {"-q", "--quiet"} & set(words):
        print(f"rank {launch.rank} of {launch.world_size}: rank 0 does this alone", file=sys.stderr)
    sys.exit(0)
