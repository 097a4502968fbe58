"""Put on PYTHONPATH, makes every Python process load the core from the file that OPENHERD_NATIVE names.

OPENHERD_PYTHON is the command by which an emulated Python starts another like it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys


class _NativeFromFile:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != "openherd._native":
            return None
        return importlib.util.spec_from_file_location(name, os.environ["OPENHERD_NATIVE"])


if "OPENHERD_NATIVE" in os.environ:
    sys.meta_path.insert(0, _NativeFromFile)  # type: ignore[arg-type]
if "OPENHERD_PYTHON" in os.environ:
    sys.executable = os.environ["OPENHERD_PYTHON"]
