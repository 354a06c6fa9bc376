"""`python -m resattn.cli` also runs the command `resattn`; the jobs of a study start it in this way."""

import sys

from resattn.cli import main

if __name__ == "__main__":
    sys.exit(main())
