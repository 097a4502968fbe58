"""herd pull: fetch a model before it is needed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag
from openherd.errors import OptionError

ContextFlag = Annotated[
    int | None,
    Parameter(
        show_default=False,
        help="Tokens of context that must fit this machine's memory beside the weights "
        "[default: 4,096, or what the model was trained for if less].",
    ),
]
ForceFlag = Annotated[
    bool,
    Parameter(
        negative=(),
        show_default=False,
        help="Fetch a model of a hub even if it does not fit this machine's memory or openherd would not run it.",
    ),
]


def pull(
    name: str | None = None,
    /,
    *,
    context: ContextFlag = None,
    force: ForceFlag = False,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Fetch a model: resumed when interrupted, verified, there whole or not at all.

    Size, licence and whether it fits this machine's memory are said before the download. A model that is already here
    is verified again, and fetched anew if its checksum is wrong. A gated model of a hub needs a token in HF_TOKEN;
    HF_ENDPOINT names a mirror.

    Parameters
    ----------
    name
        Its name in the catalogue (see: herd models), or hf:ORG/REPO[:FILE or quantisation][@REVISION]; none: the
        default model.
    """
    from openherd.store.catalogue import DEFAULT, Entry
    from openherd.store.resolve import to_fetch

    if context is not None and not 1 <= context <= 2**24:
        raise OptionError(f"--context must be from 1 to {2**24}, not {context}")
    wanted = to_fetch(DEFAULT if name is None else name)
    if isinstance(wanted, Entry):
        from openherd.store.pull import pull as fetch

        model = fetch(wanted, offline=offline, verify=True)
    else:
        from openherd.engine.memory import free_memory, total_memory
        from openherd.store.fit import Machine
        from openherd.store.hub_pull import pull_from_hub

        machine = Machine(total_memory(), free_memory())
        model = pull_from_hub(wanted, offline=offline, verify=True, context=context, machine=machine, force=force)
    if json:
        output.document({"name": model.record.name, "path": str(model.path), "record": asdict(model.record)})
    else:
        print(model.path)
