"""The table of verbs, and what every verb shares: parsing, errors, exit statuses.

Flags come from types through cyclopts, chosen because it is maintained, reads nested dataclasses with the help under
their attributes, imports a verb's module only when the verb runs, and starts in 60 ms (November 2026).

Exit status: 0 done; 1 the work failed or a gate said no; 2 the command or its input is wrong; 130 interrupted by
Ctrl-C; 141 the reader of the output went away.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from typing import get_args

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter, UnknownCommandError

from openherd import __version__
from openherd.cli import output
from openherd.cli.given import note_given
from openherd.cli.help import HelpPages
from openherd.cli.refusals import from_parser, with_flags
from openherd.errors import HerdError, InputError, OptionError

VERBS = {
    "chat": "Talk with a model in the terminal; piped input is answered line by line.",
    "run": "Write one completion to standard output.",
    "serve": "Answer HTTP requests as OpenAI's API does.",
    "ps": "List your running servers, with their models, memory and load.",
    "score": "Measure how well a model predicts a text: log-probabilities, perplexity, bits per byte.",
    "bench": "Measure how fast a model runs here, beside the machine's own limits; or how a server bears load.",
    "train": "Train a model of one's own: a vocabulary, data, the run, and what comes of it.",
    "inspect": "Say what a model is: architecture, tensors, tokenizer, template, licence, memory.",
    "convert": "Write a model in another layout: safetensors or GGUF, with all that belongs to it.",
    "quantize": "Write a model in fewer bits, and say what that cost.",
    "compare": "Say how far one model's predictions and weights are from another's.",
    "verify": "Check that a model computes what it did when its golden values were made.",
    "models": "List the models on this machine and in the catalogue.",
    "pull": "Fetch a model of the catalogue or of a hub.",
    "rm": "Remove a fetched model.",
}
"""Each verb with its line in `herd --help`, which must not import the verb's module."""

USAGES = {"run": "herd run [MODEL] -p TEXT [OPTIONS]", "score": "herd score [MODEL] FILE [OPTIONS]"}
"""Where the parser's own usage line would hide what may be left out."""

PARTS = {"train": ("tokenizer", "prepare", "preview", "estimate", "run", "export")}
"""Verbs that have verbs of their own."""

SYNONYMS = {"list": "models", "ls": "models"}
"""Words of other programs that mean one of our verbs without resembling it."""

INTERRUPTED = 130
READER_GONE = 141


def build_app() -> App:
    """The command line, with every verb registered by name only."""
    app = App(
        name="herd",
        help="Run Llama-family language models on your own machine.\n\nherd VERB --help explains a verb.",
        help_format="plaintext",
        help_formatter=HelpPages(),
        help_epilogue="Models are kept in $OPENHERD_HOME/models (~/.openherd/models).",
        version=f"openherd {__version__}",
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,
        config=(_refuse_fractions, note_given),
    )
    for order, (verb, summary) in enumerate(VERBS.items()):
        usage = {"usage": f"Usage: {USAGES[verb]}"} if verb in USAGES else {}
        app.command(f"openherd.cli.{verb}:{verb}", name=verb, help=summary, sort_key=order, **usage)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `herd` with these arguments (default: the process's own) and return the exit status."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in tokens
    try:
        output.prepare_streams()
        status = _run(tokens)
        sys.stdout.flush()
        return status
    except HerdError as error:
        output.fail(with_flags(error) if isinstance(error, OptionError) else error, as_json=as_json)
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # SystemExit: how rich takes a broken pipe while it prints help
        output.discard_stdout()
        return READER_GONE
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        output.fail(_from_defect(error), as_json=as_json)
        if isinstance(error, OSError):
            output.discard_stdout()
        return HerdError.exit_status


def _run(tokens: list[str]) -> int:
    try:
        status = build_app()(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except UnknownCommandError:
        if tokens[0] in PARTS:
            raise _unknown_part(tokens[0], tokens[1]) from None
        raise _unknown_verb(tokens[0]) from None
    except CycloptsError as error:
        chain = tuple(error.command_chain or ())
        at = next((n for n, name in enumerate(chain) if name in VERBS), None)
        verb = None if at is None else " ".join(chain[at : at + (2 if chain[at] in PARTS else 1)])
        raise from_parser(error, verb) from error
    return status if isinstance(status, int) else 0


def _refuse_fractions(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """The parser would round 1.5 to 2 where a whole number is wanted."""
    for argument in arguments:
        if argument.parameter.converter is None and int in (argument.hint, *get_args(argument.hint)):
            for token in argument.tokens:
                if "." in token.value:
                    raise OptionError(f"{token.keyword or argument.name} must be a whole number, not {token.value!r}")


def _unknown_verb(word: str) -> InputError:
    """The parser's own message would import every verb to list them."""
    near = SYNONYMS.get(word) or next(iter(difflib.get_close_matches(word, VERBS, n=1, cutoff=0.65)), None)
    guess = f"; did you mean {near}?" if near else f"; there are {', '.join(VERBS)}"
    return InputError(f"no verb or option is called {word!r}{guess}", hint="try: herd --help")


def _unknown_part(verb: str, word: str) -> InputError:
    near = next(iter(difflib.get_close_matches(word, PARTS[verb], n=1, cutoff=0.65)), None)
    guess = f"; did you mean {near}?" if near else f"; there are {', '.join(PARTS[verb])}"
    return InputError(f"herd {verb} has no part {word!r}{guess}", hint=f"try: herd {verb} --help")


def _from_defect(error: Exception) -> HerdError:
    """What no verb expected: the system's refusals in its own words, and our mistakes as such."""
    if isinstance(error, MemoryError):
        return HerdError("memory ran out", hint="try a smaller --context or --kv-memory, or a smaller model")
    if isinstance(error, OSError):
        subject = f"{error.filename}: " if error.filename else "reading or writing failed: "
        return HerdError(f"{subject}{error.strerror or error}")
    return HerdError(
        f"a defect of openherd: {type(error).__name__}: {error}",
        hint="please report it; PYTHONDEVMODE=1 herd ... shows where it is",
    )
