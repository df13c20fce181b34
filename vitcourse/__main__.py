"""`python -m vitcourse` is the command `vitcourse`."""

import sys

from vitcourse.cli import main

if __name__ == "__main__":
    sys.exit(main())
