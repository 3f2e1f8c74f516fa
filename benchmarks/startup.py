"""How long a person waits before anything happens: `import maquette` and `maquette --help`, medians of seven fresh processes.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from results import update


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def median(command: list[str]) -> float:
    return round(statistics.median(seconds(command) for _ in range(7)), 3)


if __name__ == "__main__":
    python = sys.executable
    bare = median([python, "-c", "pass"])
    figures = {
        "import_seconds": round(median([python, "-c", "import maquette"]) - bare, 3),
        "help_seconds": median([python, "-m", "maquette.cli", "--help"]),
        "python_alone_seconds": bare,
    }
    update("startup", figures, seed=0)
