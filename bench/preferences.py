"""DPO of the default model on rasbt's pairs of polite and rude answers: held-out preference accuracy, with curves.

    python -m bench.preferences FOLDER PAIRS.json [--recipe recipes/preferences.toml]

FOLDER keeps the split, the prepared data and the run; a second call goes on where the first ended. The split is drawn
with a fixed seed; pairs of two equal answers are left out. Before training accuracy is 0 by definition: the model and
its reference are the same, so nothing is preferred. `accuracy` counts pairs whose chosen answer gained more than the
rejected one over the reference (Rafailov et al. 2023, the implicit reward); the others are printed at the end.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

from bench.training import evaluations, trained
from openherd.train.prepare import WeightedPath, prepare
from openherd.train.token_file import open_tokens
from openherd.train.tokenizer_source import open_tokenizer

if TYPE_CHECKING:
    from openherd.train.loop import Trainer

RECIPE = Path(__file__).parents[1] / "recipes" / "preferences.toml"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("pairs", type=Path, help="rasbt's instruction data with preferences (JSON)")
    arguments.add_argument("--recipe", type=Path, default=RECIPE)
    arguments.add_argument("--held-out", type=int, default=100, help="pairs to measure on")
    arguments.add_argument("--threads", type=int, default=2)
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    train_on, held_out = split(given.pairs, given.folder, given.held_out)
    trainer = trained(given.recipe, given.folder, train_on, held_out, given.threads, show)
    for entry in evaluations(given.folder):
        print(json.dumps({name: value for name, value in entry.items() if name not in ("event", "time")}), flush=True)
    for margin, row in wrong(trainer, held_out, given.folder / "held_out.jsonl"):
        print(f"margin {margin:.2f}: {row['instruction']} {row['input']}")
        print(f"    chosen:   {row['chosen']}\n    rejected: {row['rejected']}", flush=True)


def wrong(trainer: Trainer, held_out: Path, rows: Path) -> list[tuple[float, dict[str, str]]]:
    """Held-out pairs whose rejected answer gained more, the worst first."""
    import torch

    from openherd.train.batch import Batch
    from openherd.train.packing import PackedRows

    folder, found = open_tokens(held_out), []
    for pair, line in enumerate(rows.read_text().splitlines()):
        ends = folder[2 * pair], folder[2 * pair + 1]
        packed = PackedRows.empty(2, max(len(end.ids) for end in ends) - 1)
        for row, end in enumerate(ends):
            packed.place(row, 0, end.ids, end.mask)
        with torch.no_grad():
            margin = float(trainer.objective.loss(trainer.model, Batch.from_arrays(packed), 1.0).metrics["margin"])
        if margin <= 0:
            found.append((margin, json.loads(line)))
    return sorted(found, key=lambda one: one[0])


def split(pairs: Path, folder: Path, held_out: int) -> tuple[Path, Path]:
    """Prepared folders to learn from and to measure on."""
    rows = [row for row in json.loads(pairs.read_text()) if row["chosen"] != row["rejected"]]
    random.Random(0).shuffle(rows)
    source = open_tokenizer(None)
    tokenizer = source.tokenizer()
    folders = []
    for name, part in (("train", rows[held_out:]), ("held_out", rows[:held_out])):
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in part))
        folders.append(folder / name)
        if not folders[-1].exists():
            prepare([WeightedPath(file)], folders[-1], tokenizer, source.chat_template(tokenizer))
    return folders[0], folders[1]


def show(step: int, metrics: object) -> None:
    assert isinstance(metrics, dict)
    print(f"step {step}: loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.2f}", flush=True)


if __name__ == "__main__":
    main()
