"""Run thousands of mutated label files, command lines and checkpoints.

`python tests/benchmarks/fuzz.py STATE.json [KIND…]` runs the numbers in COUNTS, prints what is raised, and keeps the
results in a file, from which it continues if it was stopped.
"""

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz_checkpoints import load_mutant, parse, read_and_load, resume, start_from
from fuzzing import FORMATS, convert_mutant, make_sources, read_mutant, run_mutant

COUNTS = {
    "read": 5000,
    **dict.fromkeys(FORMATS, 500),
    "words": 500,
    **dict.fromkeys(("Predictor", "init_from", "predict", "resume"), 700),
}
# No case may take longer.
LIMIT_S = 20
SAVE_EVERY_N = 25


def main(state: Path, names: list[str]) -> None:
    """Run what is missing of each kind, and print what is raised, once for each place."""
    sources = make_sources(Path.cwd())
    mutant = Path.cwd() / "mutant.ckpt"
    loads = {"Predictor": read_and_load, "init_from": start_from, "predict": parse("predict"), "resume": resume}
    kinds: dict[str, Callable[[int], int]] = {
        "read": read_mutant(sources),
        **{name: convert_mutant(sources, name) for name in FORMATS},
        "words": run_mutant(sources),
        **{name: load_mutant(load, mutant) for name, load in loads.items()},
    }
    results: dict[str, Any] = json.loads(state.read_text()) if state.is_file() else {}
    for name in names:
        one = results.setdefault(name, {"n": 0, "seconds": 0.0, "slowest": 0.0, "codes": {}, "faults": {}})
        while one["n"] < COUNTS[name]:
            begin = time.perf_counter()
            code = _run(kinds[name], one["n"], one["faults"])
            seconds = time.perf_counter() - begin
            one["codes"][code] = one["codes"].get(code, 0) + 1
            one |= {"n": one["n"] + 1, "seconds": one["seconds"] + seconds, "slowest": max(one["slowest"], seconds)}
            if one["n"] % SAVE_EVERY_N == 0:
                state.write_text(json.dumps(results, indent=1))
        print(name, one, file=sys.__stdout__, flush=True)


def _run(call: Callable[[int], int], number: int, faults: dict[str, str]) -> str:
    """Run a case; return its exit code, or `fault`, which is added to `faults` by its place."""
    signal.alarm(LIMIT_S)
    try:
        return str(call(number))
    except Exception as error:  # noqa: BLE001  # all of them are findings
        frames = traceback.extract_tb(error.__traceback__)
        own = [one for one in frames if "keypoint_detection/" in one.filename] or frames
        place = f"{type(error).__name__} at {own[-1].filename}:{own[-1].lineno}"
        faults.setdefault(place, f"{number}: {str(error)[:200]!a}")
        return "fault"
    finally:
        signal.alarm(0)


def _expire(*_: object) -> None:
    raise TimeoutError("hangs")


if __name__ == "__main__":
    file, kinds = Path(sys.argv[1]).absolute(), sys.argv[2:] or list(COUNTS)
    signal.signal(signal.SIGALRM, _expire)
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w", encoding="utf-8") as nothing:
        os.chdir(scratch)
        sys.stdout = sys.stderr = nothing
        main(file, kinds)
