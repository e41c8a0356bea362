"""`python -m icr_tasks.cli ...`, which launchers such as `accelerate launch -m` need."""

from __future__ import annotations

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
