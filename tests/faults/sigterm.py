"""Sends SIGTERMs to training runs, several at a time, and prints what came of each.

    python -m tests.faults.sigterm DATA OUT [--count 42] [--parallel 7] [--preset srn128] [--compile]

The signals go to the process, its group, both (as `timeout` sends them), the launcher and its group, at random times in
start-up, the recording of CUDA graphs, steps, evaluations and saves, with loaders and without. --compile: every run
compiles one Triton kernel anew, from a copy of the cache that TRITON_CACHE_DIR names, and its signals come in pairs.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import ROOT

RECEIVERS = ("process", "group", "both", "launcher", "launcher's group")
MOMENTS = ("start-up", "recording", "step", "evaluation", "save", "step")
LAUNCHER = ("torch_utils/launch.py", "--nproc-per-node=1")
PATIENCE = 120  # seconds


def wait(until: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def wait_for(moment: str, folder: Path, process: subprocess.Popen, rng: random.Random) -> None:
    """Returns at a random instant of this part of the run in `folder`."""
    log, stats = folder / "log", folder / "stats.jsonl"
    if moment == "start-up":
        time.sleep(rng.uniform(1, 12))
        return
    wait(lambda: "Training to" in log.read_text(), process)
    if moment == "recording":
        time.sleep(rng.uniform(0, 8))
        return
    wait(lambda: stats.exists() and stats.stat().st_size > 0, process)
    if moment == "step":
        time.sleep(rng.uniform(0, 4))
        return
    before = set(os.listdir(folder))
    kind = "network-snapshot" if moment == "evaluation" else "training-state"  # an evaluation follows a snapshot
    wait(lambda: any(kind in name for name in set(os.listdir(folder)) - before), process)
    time.sleep(rng.uniform(0, 0.5))


def trial(number: int, options: argparse.Namespace) -> dict:
    rng = random.Random(number)
    receiver, moment = RECEIVERS[number % len(RECEIVERS)], MOMENTS[number % len(MOMENTS)]
    folder = options.out / f"{number:03d}"
    folder.mkdir(parents=True)
    variables = {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2"}
    if options.compile:
        variables["TRITON_CACHE_DIR"] = str(shutil.copytree(os.environ["TRITON_CACHE_DIR"], folder / "cache"))
        shutil.rmtree(sorted(folder.glob("cache/*/*.cubin"))[0].parent)
    command = [sys.executable, *(LAUNCHER if "launcher" in receiver else ()), "train.py", "--preset", options.preset]
    command += ["--data", str(options.data), "--outdir", str(folder), "--nosubdir", "--batch=8", "--tick=0.2"]
    command += ["--snap=2", "--dump=1", "--logger=none", f"--workers={0 if number % 4 == 3 else 8}", "--duration=10"]
    with open(folder / "log", "w") as log:
        environment = {**os.environ, **variables}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    wait_for(moment, folder, process, rng)
    sent = time.monotonic()
    for _ in range(2 if options.compile else 1):
        if "group" not in receiver:
            process.terminate()
        if receiver in ("both", "group", "launcher's group"):
            with contextlib.suppress(ProcessLookupError):  # the group may have ended
                os.killpg(process.pid, signal.SIGTERM)
    try:
        code: int | str = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # faulthandler prints where it is
        time.sleep(2)
        os.killpg(process.pid, signal.SIGKILL)
        code = "none: it hangs"
    text = (folder / "log").read_text(errors="replace")
    said = re.search(r"(Stopped at|stopped before).*", text)
    saved = said is not None and (said[1] == "stopped before" or any(folder.glob("training-state-*.pt")))
    seconds = round(time.monotonic() - sent, 1)
    result = {"number": number, "receiver": receiver, "moment": moment, "exit code": code, "seconds": seconds}
    print(json.dumps({**result, "good": saved, "said": said and said[0][:70]}), flush=True)
    if not saved:
        print(f"--- the log of {number}\n{text[-3000:]}\n---", flush=True)
    shutil.rmtree(folder)
    return {**result, "good": saved}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sigterm", description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=42)
    parser.add_argument("--parallel", type=int, default=7)
    parser.add_argument("--preset", default="srn128")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    with ThreadPoolExecutor(options.parallel) as pool:
        results = list(pool.map(lambda number: trial(number, options), range(options.count)))
    good = sum(result["good"] for result in results)
    print(f"SIGTERMs after which a run was saved, or said that there was nothing to save: {good} of {options.count}")


if __name__ == "__main__":
    main()
