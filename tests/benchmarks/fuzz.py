"""Convert and check mutated files, and run mutated command lines, for as long as asked.

`python tests/benchmarks/fuzz.py COUNT SEED SECONDS` runs COUNT cases of each kind, or as many as the seconds allow.
"""

import collections
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzzing import FORMATS, check_mutants, command_lines, convert_mutants, make_sources, mutate_words, run_refusing

SLOW_S = 20.0


def main(count: int, seed: int, limit_s: float) -> None:
    """Run so many cases of each kind, and print what is raised, once for each place."""
    sources = make_sources(Path.cwd())
    lines = list(command_lines(sources).values())
    chance = random.Random(seed)
    kinds: dict[str, Iterable[Callable[[], int]]] = {
        name: convert_mutants(sources, name, count, seed) for name in FORMATS
    }
    kinds["check"] = check_mutants(sources, count, seed)
    kinds["words"] = ((lambda: run_refusing(mutate_words(chance.choice(lines), chance))) for _ in range(count))
    for name, calls in kinds.items():
        codes: collections.Counter[object] = collections.Counter()
        seen: set[str] = set()
        begin = time.perf_counter()
        for call in calls:
            if time.perf_counter() - begin > limit_s:
                break
            start = time.perf_counter()
            try:
                codes[call()] += 1
            except Exception as error:  # noqa: BLE001  # all of them are findings
                codes["fault"] += 1
                frames = traceback.extract_tb(error.__traceback__)
                own = [one for one in frames if "keypoint_detection/" in one.filename]
                key = f"{type(error).__name__} at {own[-1].filename}:{own[-1].lineno}" if own else str(frames[-1])
                if key not in seen:
                    seen.add(key)
                    print(f"  {name}: {key}: {str(error)[:200]!a}", flush=True)
            if time.perf_counter() - start > SLOW_S:
                print(f"  {name}: a case took {time.perf_counter() - start:.0f} s", flush=True)
        print(f"{name}: {sum(codes.values())} cases, {time.perf_counter() - begin:.0f} s, {dict(codes)}", flush=True)


if __name__ == "__main__":
    arguments = [float(one) for one in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w", encoding="utf-8") as nothing:
        os.chdir(scratch)
        sys.stderr = nothing
        main(int(arguments[0]), int(arguments[1]), arguments[2])
