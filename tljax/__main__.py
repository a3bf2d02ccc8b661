"""`python -m tljax` is the command `tljax`."""

import sys

from tljax.cli import main

if __name__ == "__main__":
    sys.exit(main())
