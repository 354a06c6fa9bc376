"""`python -m benchmarks [FILE.json [PART ...]]`: every speed comparison, or some; the default is results/bench.json."""

import sys
from pathlib import Path

from benchmarks.audits import PARTS, main

if __name__ == "__main__":
    path, *parts = sys.argv[1:] or ["results/bench.json"]
    if path in ("-h", "--help") or set(parts) - set(PARTS):
        sys.exit(f"{__doc__}\nparts: {', '.join(PARTS)}")
    main(Path(path), parts)
