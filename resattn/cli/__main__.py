"""`python -m resattn.cli` is the command `resattn`, too: jobs of a study start it so."""

import sys

from resattn.cli import main

if __name__ == "__main__":
    sys.exit(main())
