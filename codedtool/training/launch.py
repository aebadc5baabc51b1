"""How this process was started: alone, or as one of several ranks by torchrun or a cluster.

This is the only place that decides by the variables RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. Clusters and notebooks leave some of them in the environment of commands that nobody started as ranks.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from codedtool.errors import InputError

ADVICE = "start every process with torchrun, or unset these variables to work in one process"


class Launch(NamedTuple):
    """This process among those that work together.

    Attributes:
        rank: number of this process, 0..world_size-1.
        world_size: number of processes, at least 1.
        local_rank: number of this process on its machine.
        local_world_size: number of processes on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


# A process that works on its own.
ALONE = Launch()


def read_launch() -> Launch:
    """Read the variables; an empty one counts as not set.

    Raises:
        InputError: a value is no whole number or impossible beside the others; the message names the variables.
    """
    world_size = _number("WORLD_SIZE", 1, low=1)
    local_world_size = _number("LOCAL_WORLD_SIZE", 1, low=1)
    return Launch(
        _number("RANK", 0, below=("WORLD_SIZE", world_size)),
        world_size,
        _number("LOCAL_RANK", 0, below=("LOCAL_WORLD_SIZE", local_world_size) if _value("LOCAL_WORLD_SIZE") else None),
        local_world_size,
    )


def check_group(launch: Launch, *, has_gpus: bool) -> None:
    """Raise InputError if there are several ranks and this one cannot find the others, or its own GPU."""
    needed = ("RANK", *(("LOCAL_RANK",) if has_gpus else ()), "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if not _value(name)]
    if launch.world_size > 1 and missing:
        raise InputError(
            f"the environment has WORLD_SIZE={launch.world_size}, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set: {ADVICE}"
        )


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()


def _number(name: str, default: int, *, low: int = 0, below: tuple[str, int] | None = None) -> int:
    text = _value(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= low):
        raise InputError(f"the environment has {name}={text}, which is no whole number from {low} on: {ADVICE}")
    if below is not None and int(text) >= below[1]:
        given = f"{below[0]}={below[1]}" if _value(below[0]) else f"no {below[0]}"
        raise InputError(f"the environment has {name}={text} and {given}: {name} must be smaller; {ADVICE}")
    return int(text)
