"""``python -m catapults.compute FOLDER``: compute a job that ``catapults compute --pack FOLDER`` has made."""

import argparse
import sys
from pathlib import Path

from . import job
from .files import Damaged


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m catapults.compute", description=job.__doc__)
    parser.add_argument("folder", type=Path, help="the job")
    parser.add_argument("--hours", type=float, default=None, help="stop then; the next call goes on from there")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--processes", type=int, default=None, help="at a time; by default one a core, one on a GPU")
    given = parser.parse_args()
    try:
        results = job.run(given.folder, given.hours, given.device, given.processes)
    except (ValueError, OSError, Damaged) as error:
        print(f"catapults: {error}", file=sys.stderr)
        return 1
    print(results.describe())
    return 1 if any(not outcome.unfinished for outcome in results.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
