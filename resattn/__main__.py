"""`python -m resattn` runs the command `resattn`."""

import sys

from resattn.cli import main

if __name__ == "__main__":
    sys.exit(main())
