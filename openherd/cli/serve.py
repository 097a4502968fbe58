"""herd serve: an OpenAI-compatible server."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import ENGINE, EngineFlags, JsonFlag, OfflineFlag, warn_of_many_threads
from openherd.cli.given import GivenFlags
from openherd.errors import HerdError, OptionError
from openherd.options import help_text
from openherd.serve.options import LogFormat, ModelOptions, ServeOptions  # noqa: F401  # of inherited annotations

if TYPE_CHECKING:
    from openherd.serve.configuration import Configuration


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ServeFlags(ServeOptions):
    """`ServeOptions`, each field a flag."""

    cors_origin: Annotated[
        tuple[str, ...], Parameter(show_default=False, help=help_text(ServeOptions, "cors_origin"))
    ] = ()


SERVE = ServeFlags()

NEEDED = ("fastapi", "uvicorn", "httptools", "prometheus_client")
"""Modules of the extra `serve`."""

QUESTION = "What is the capital of France?"


def serve(
    *models: Annotated[str, Parameter(name="MODEL")],
    template: str | None = None,
    adapter: str | None = None,
    add_key: str | None = None,
    config: str | None = None,
    show_config: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    options: ServeFlags = SERVE,
    engine: EngineFlags = ENGINE,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
    given: GivenFlags = (),
) -> int:
    """Answer HTTP requests as OpenAI's API does, until Ctrl-C or SIGTERM; what runs then may end first.

    Parameters
    ----------
    models
        Catalogue names or files, or names of models in --config; none: the file's models, or the default model.
    template
        A built-in chat template (chatml, llama-2, llama-3) or a Jinja file instead of the models' own.
    adapter
        A LoRA adapter, as NAME=PATH or PATH; requests choose it by giving NAME as their model.
    add_key
        Make an API key of this name, add its hash to the file of --keys, write the key, and end.
    config
        TOML file with the same options as these flags, which win over it, and [[models]] with their own.
    show_config
        Write the configuration that flags and file make together, as TOML, and end.
    """
    from openherd.serve.configuration import Flags, configure, read_configuration

    flags = Flags(
        models,
        ModelOptions(template=template, adapter=() if adapter is None else (adapter,)),
        options,
        engine,
        frozenset(given),
        is_offline=offline,
    )
    configuration = configure(flags, read_configuration(config))
    if show_config:
        return _show(configuration, as_json=json)
    if add_key is not None:
        return _add_key(add_key, configuration.options.keys, as_json=json)
    return _serve(configuration, as_json=json)


def _serve(configuration: Configuration, *, as_json: bool) -> int:
    from openherd.serve.keys import load_keys

    options = configuration.options
    keys = load_keys(options.keys)
    options.check_exposure(has_keys=bool(keys))
    if missing := [module for module in NEEDED if find_spec(module) is None]:
        raise HerdError(
            f"herd serve needs what is not installed: {', '.join(missing)}",
            hint="try, in openherd's folder: pip install '.[serve]'",
        )
    if options.log_prompts:
        output.note("herd: warning: --log-prompts writes what people ask into the log, and keeps it as the log is kept")
    warn_of_many_threads(configuration.engine.threads)

    from openherd.cli.served_models import model_specs
    from openherd.serve.server import run

    say = partial(_say, with_keys=bool(keys))
    return run(model_specs(configuration), options, keys, tell=_unless_unread if as_json else say)


def _unless_unread(event: dict[str, Any]) -> None:
    """The server goes on, and ends in good order, when nobody reads what it says any more."""
    try:
        output.document(event)
    except BrokenPipeError:
        output.discard_stdout()
    except OSError:  # a full disk may have room again for this line too
        pass


def _show(configuration: Configuration, *, as_json: bool) -> int:
    from openherd.serve.show import configuration_document, configuration_toml

    if as_json:
        output.document(configuration_document(configuration))
    else:
        print(configuration_toml(configuration))
    return 0


def _add_key(name: str, file: str | None, *, as_json: bool) -> int:
    """The key itself is shown this once."""
    from openherd.serve.keys import add_key

    if file is None:
        raise OptionError("--add-key needs the file to add to", hint=f"try: --keys FILE --add-key {name}")
    key = add_key(file, name)
    if as_json:
        output.document({"name": name, "key": key})
    else:
        print(key)
        output.note(f"herd: only its hash is kept, in {file}; requests send it as Authorization: Bearer KEY")
    return 0


def _say(news: dict[str, Any], *, with_keys: bool) -> None:
    """What happened, for a person: how to ask on standard output, the rest on standard error."""
    match news["event"]:
        case "ready":
            print(_invitation(news, with_keys), flush=True)
        case "draining" if news["requests"]:
            output.note(f"herd: stopping; what runs ({news['requests']}) may finish within {news['limit_s']:g} s")
        case "not_listed":
            output.note(f"herd: herd ps will not show this server: {news['message']}")
        case "worker_died":
            output.note(f"herd: the worker of {news['model']} died (status {news['status']}); starting another")
        case "worker_failed":
            output.note(f"herd: {news['model']} cannot be loaded again: {news['message']}")
        case "worker_restarted":
            output.note(f"herd: {news['model']} is ready again")
        case "model_loaded":
            output.note(f"herd: {news['model']} is loaded, in {news['seconds']:.1f} s")
        case "model_load_failed":
            output.note(f"herd: {news['model']} cannot be loaded: {news['message']}")
        case "model_load_cancelled":
            output.note(f"herd: loading {news['model']} was cancelled")
        case "model_unloaded":
            output.note(f"herd: {news['model']} was unloaded: {news['why']}")


def _invitation(news: dict[str, Any], with_keys: bool) -> str:
    if "models" in news:
        listed = "\n".join(f"  {_model_line(model)}" for model in news["models"])
        ways_in = _ways_in(news["url"], news["models"][0]["model"], with_keys)
        return f"Ready at {news['url']}. Ctrl-C stops it.\n\n{listed}\n\n{ways_in}"
    return (
        f"{news['model']} is ready at {news['url']}, with {_context(news)}. Ctrl-C stops it.\n\n"
        f"{_ways_in(news['url'], news['model'], with_keys)}"
    )


def _model_line(model: dict[str, Any]) -> str:
    return f"{model['model']}: {_context(model) if 'context' in model else 'loaded when it is first asked for'}"


def _context(facts: dict[str, Any]) -> str:
    context = f"{facts['context']} tokens of context"
    if facts["context"] < facts["trained_context"]:
        context += f", of {facts['trained_context']} it was trained for"
    return context


def _ways_in(url: str, model: str, with_keys: bool) -> str:
    message = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": QUESTION}]}
    key = " -H 'Authorization: Bearer KEY'" if with_keys else ""
    return (
        f"  Chat in a browser: {url}/\n\n"
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\\n"
        f"    -d '{json_module.dumps(message)}'\n"
    )
