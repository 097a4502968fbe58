"""herd train: a model of one's own. One command a stage; each prints what the next one needs.

Every part is registered by name only: `herd train --help` imports none of them.
"""

from __future__ import annotations

from cyclopts import App, Parameter

PARTS = {
    "tokenizer": "Train a vocabulary: byte-level BPE with Llama 3's splitting of text.",
    "prepare": "Encode data into a folder of tokens and loss masks that training maps into memory, and look for what "
    "is wrong.\n\nReports duplicates, empty answers, likely personal data, and text shared with evaluation sets; "
    "removes nothing.",
    "preview": "Show the tokens of a few rows, coloured by whether they are learnt; without colours learnt text stands "
    "in ⟦ ⟧.",
    "estimate": "Forecast memory, time and cost of a run, and say whether it fits this machine.\n\nA few steps are "
    "computed and timed, and nothing is left behind. The exit status is 1 where the memory does not suffice.",
    "run": "Train a model into a folder, or go on with the run that is there.\n\nCtrl-C and SIGTERM save and end; the "
    "same command goes on. Every key of a recipe is a flag here.",
    "export": "Write a trained model as safetensors or GGUF, and check that it computes the same.",
}
"""Each part with its help, whose first line stands in `herd train --help`."""

train = App(
    name="train",
    help="Train a model of one's own: a vocabulary, data, the run, and what comes of it.",
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=()),
)
for order, (part, summary) in enumerate(PARTS.items()):
    train.command(f"openherd.cli.train.{part}:{part}", name=part, help=summary, sort_key=order)
