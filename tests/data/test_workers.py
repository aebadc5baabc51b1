from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest

from codedtool.data.workers import in_workers

# A data set that a worker unpickles slowly: after a Ctrl-C, the worker is still at its start.
SLOW = """
    import time

    class Slow:
        def __setstate__(self, state):
            time.sleep(1)

        def __getitem__(self, job):
            return job
"""

# Where the signal comes: while the server of the workers starts (to all processes, as a terminal sends it), within the
# start of the first worker, or while the main process waits for a batch. After that the script takes longer than a
# worker's start.
SCRIPT = """
    import multiprocessing.context
    import multiprocessing.process
    import multiprocessing.util
    import os
    import signal
    import sys
    import threading
    import time

    from torch.utils.data import _utils, dataloader

    from codedtool.data.workers import in_workers
    from slow import Slow

    name, number, is_kept = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "kept"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    places = {"start": multiprocessing.process.BaseProcess, "_get_data": dataloader._MultiProcessingDataLoaderIter}
    if name in places:
        usual = getattr(places[name], name)

        def interrupted(*arguments):
            result = usual(*arguments) if name == "start" else None
            setattr(places[name], name, usual)
            os.kill(os.getpid(), number)
            return result

        setattr(places[name], name, interrupted)
    else:
        usual = multiprocessing.context.BaseContext.set_forkserver_preload

        def interrupt():
            while not os.path.exists("importing"):
                time.sleep(0.01)
            os.killpg(0, number)

        multiprocessing.context.BaseContext.set_forkserver_preload = lambda context, _: usual(context, ["imported"])
        threading.Thread(target=interrupt, daemon=True).start()
    # Comes after multiprocessing has removed its semaphores, and before it ends its processes.
    multiprocessing.util.Finalize(None, time.sleep, args=(2,), exitpriority=0)
    # torch waits so long for a worker to end by itself, and then ends it: on a busy machine its start takes longer.
    _utils.MP_STATUS_CHECK_INTERVAL = 0.1
    slow = Slow()
    slow.name = "slow"
    try:
        list(in_workers(iter(range(4)), slow, num_workers=2, pin_memory=False))
    except KeyboardInterrupt as error:
        if is_kept:
            # As a debugger or a cycle of objects does it: the frames, and torch's loader in them, live until the end.
            sys.last_value = error
        print("interrupted", file=sys.stderr)
    if not is_kept:
        time.sleep(2)
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("place", "number", "is_kept"),
    [
        ("server", signal.SIGINT, "freed"),
        ("start", signal.SIGTERM, "freed"),
        ("_get_data", signal.SIGINT, "kept"),
    ],
)
def test_ctrl_c_while_workers_start_prints_nothing_of_theirs(
    place: str, number: signal.Signals, is_kept: str, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(textwrap.dedent(SLOW))
    (tmp_path / "imported.py").write_text("import time; open('importing', 'w').close(); time.sleep(1)\n")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    # The end of both pipes is awaited, so a worker that outlived the script would be waited for too.
    ended = subprocess.run(
        [sys.executable, "script.py", place, str(int(number)), is_kept],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )
    assert (ended.returncode, ended.stderr.splitlines()) == (130, ["interrupted"])


def test_more_workers_than_cores_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: Any = [0, 2, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(in_workers(iter(range(3)), jobs, num_workers=1, pin_memory=False)) == jobs
    monkeypatch.setattr("codedtool.data.workers.usable_cores", lambda: 1)
    with pytest.warns(UserWarning, match=r"^`num_workers` 2 is more than the cores .* \(1\); fewer"):
        assert list(in_workers(iter(range(3)), jobs, num_workers=2, pin_memory=False)) == jobs
