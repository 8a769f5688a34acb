"""``python -m lmgc_torch.cli``."""

import sys

from lmgc_torch.cli import main

if __name__ == "__main__":
    sys.exit(main())
