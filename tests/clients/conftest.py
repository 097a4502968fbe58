"""These tests run under `make clients`, which installs the clients; `make test` does not collect them.

`make test` has the `openai` package's own tests in tests/serve.
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("OPENHERD_CLIENTS") else ["test_*.py"]
