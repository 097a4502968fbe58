"""The exceptions a person can meet. Each message says what, why, and the next thing to try.

`HerdError.exit_status` follows the command line's contract: 1 the work failed, 2 the command or the input is
wrong. Anything that is not a `HerdError` is a defect of ours.
"""

from __future__ import annotations


class HerdError(Exception):
    """Base of every error meant for a person. `hint` is the next command or flag to try."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.hint}" if self.hint else message


class InputError(HerdError):
    """The command, an option or a value is wrong: change it and try again."""

    exit_status = 2


class OptionError(InputError, ValueError):
    """An option has a value that cannot be used; the message begins with the option's name and says its range."""


class FormatError(InputError):
    """A file is truncated, corrupt, hostile, or not what its name says."""


class UnsupportedError(InputError):
    """The file or request is well formed but needs something openherd does not do; the message says what it does."""


class ModelNotFoundError(InputError):
    """No model answers to that reference."""


class TemplateError(InputError):
    """A chat template is missing, does not render, or exceeds its bounds."""


class ContextLengthError(InputError):
    """The prompt (and what was asked to follow it) does not fit the context."""


class SchemaError(InputError):
    """A JSON schema cannot be enforced; the message names the keyword."""


class ToolError(InputError):
    """A tool, a choice of tools or a call of one is malformed. `param` is the place in the request."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class DownloadError(HerdError):
    """Fetching a model failed: no network, no space, or a checksum that does not match."""


class OutputError(HerdError):
    """A file could not be written: no space, no permission, or something is in its place."""


class CapacityError(HerdError):
    """Memory or KV blocks do not suffice for what was asked."""


class EngineError(HerdError):
    """A request failed inside the engine; other requests go on."""
