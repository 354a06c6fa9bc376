"""`python -m benchmarks [FILE.json]`: every speed comparison; the default file is results/bench.json."""

import sys
from pathlib import Path

from benchmarks.audits import main

if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    main(Path(*sys.argv[1:] or ["results/bench.json"]))
