"""herd train: a model of one's own. One command a stage; each prints what the next one needs.

Every part is registered by name only: `herd train --help` imports none of them.
"""

from __future__ import annotations

from cyclopts import App, Parameter

PARTS = {
    "tokenizer": "Train a vocabulary: byte-level BPE with Llama 3's splitting of text.",
    "prepare": "Encode data into a folder of tokens and loss masks, and look for what is wrong with it.",
    "preview": "Show the tokens of a few rows, coloured by whether they are learnt.",
    "estimate": "Forecast memory, time and cost of a run, and say whether it fits this machine.",
    "run": "Train: pretrain, fine-tune, learn from preferences or from checked answers.",
    "export": "Write a trained model as safetensors or GGUF, and check that it computes the same.",
}
"""Each part with its line in `herd train --help`."""

train = App(
    name="train",
    help="Train a model of one's own: a vocabulary, data, the run, and what comes of it.",
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=()),
)
for order, (part, summary) in enumerate(PARTS.items()):
    train.command(f"openherd.cli.train.{part}:{part}", name=part, help=summary, sort_key=order)
