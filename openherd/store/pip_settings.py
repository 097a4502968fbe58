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

from openherd.errors import InputError
from openherd.store.web import origin

_PYPI = "https://pypi.org/simple"
_TIMEOUT_S = 15.0  # pip's own default
_LONGEST_S = 1e6  # sockets refuse much longer times


@dataclass(frozen=True, slots=True)
class PipSettings:
    """Where and how packages are fetched. `indexes` are in pip's order and may carry credentials."""

    indexes: tuple[str, ...] = (_PYPI,)
    certificates: str | None = None
    proxy: str | None = None
    timeout_s: float = _TIMEOUT_S


def read_pip_settings() -> PipSettings:
    """pip's settings; without pip beside this interpreter, its environment variables alone.

    Raises InputError as `parse_pip_settings` does: pip itself would stop at such a setting too.
    """
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    )
    return parse_pip_settings(asked.stdout if asked.returncode == 0 else _from_environment())


def parse_pip_settings(listing: str) -> PipSettings:
    """Settings from the output of `pip config list`: one `section.key='value'` a line.

    Raises InputError that names the setting for a time-out that is none, or an index whose address cannot be taken
    apart.
    """
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
        indexes = (
            _address("index-url", value("index-url") or _PYPI),
            *(_address("extra-index-url", index) for index in (value("extra-index-url") or "").split()),
        )
    timeout = "timeout" if value("timeout") else "default-timeout"  # two names of one option
    return PipSettings(
        indexes=indexes,
        certificates=value("cert"),
        proxy=value("proxy"),
        timeout_s=_seconds(timeout, value(timeout) or str(_TIMEOUT_S)),
    )


def _address(key: str, url: str) -> str:
    """`url`, which is not shown where it is wrong: it may carry a password in any of its parts."""
    try:
        origin(url)
    except ValueError:
        raise _wrong(key, "is not an address") from None
    return url


def _seconds(key: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_S:
        raise _wrong(key, f"must be a number of seconds up to {_LONGEST_S:.0f}, not {value[:40]!r}")
    return seconds


def _wrong(key: str, what: str) -> InputError:
    variable = f"PIP_{key.upper().replace('-', '_')}"
    return InputError(f"pip's setting {key} {what}", hint=f"see: pip config list, and the variable {variable}")


def _from_environment() -> str:
    names = {
        name: name.removeprefix("PIP_").lower().replace("_", "-") for name in os.environ if name.startswith("PIP_")
    }
    return "\n".join(f":env:.{key}={os.environ[name]!r}" for name, key in names.items())
