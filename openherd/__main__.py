"""`python -m openherd` is the command `herd`."""

from __future__ import annotations

import sys

from openherd.cli import main

sys.exit(main())
