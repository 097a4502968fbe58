"""The package index this machine's pip is configured for, asked of pip itself.

Read here: `index-url`, `extra-index-url`, `no-index`, `cert`, `proxy`, `timeout`, with pip's own precedence (variables
`PIP_*`, then the section of the command, then `global`). Everything else (keyrings, netrc, client certificates,
folders as indexes) is left to pip: see `pull`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass

_PYPI = "https://pypi.org/simple"
_TIMEOUT_S = 15.0  # pip's own default


@dataclass(frozen=True, slots=True)
class PipSettings:
    """Where and how packages are fetched. `indexes` are in pip's order and may carry credentials."""

    indexes: tuple[str, ...] = (_PYPI,)
    certificates: str | None = None
    proxy: str | None = None
    timeout_s: float = _TIMEOUT_S


def read_pip_settings() -> PipSettings:
    """pip's settings; without pip beside this interpreter, its environment variables alone."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    )
    return parse_pip_settings(asked.stdout if asked.returncode == 0 else _from_environment())


def parse_pip_settings(listing: str) -> PipSettings:
    """Settings from the output of `pip config list`: one `section.key='value'` a line."""
    values: dict[str, str] = {}
    for line in listing.splitlines():
        name, separator, literal = line.partition("=")
        if separator:
            values[name.strip()] = str(ast.literal_eval(literal))

    def value(key: str) -> str | None:
        return next((values[k] for k in (f":env:.{key}", f"download.{key}", f"global.{key}") if k in values), None)

    if (value("no-index") or "").lower() in ("1", "true", "yes", "on"):
        indexes: tuple[str, ...] = ()
    else:
        indexes = ((value("index-url") or _PYPI), *(value("extra-index-url") or "").split())
    return PipSettings(
        indexes=indexes,
        certificates=value("cert"),
        proxy=value("proxy"),
        timeout_s=float(value("timeout") or value("default-timeout") or _TIMEOUT_S),
    )


def _from_environment() -> str:
    names = {
        name: name.removeprefix("PIP_").lower().replace("_", "-") for name in os.environ if name.startswith("PIP_")
    }
    return "\n".join(f":env:.{key}={os.environ[name]!r}" for name, key in names.items())
