"""A LoRA of the default model on a small set of one's own answers: does it take, and what does it cost elsewhere?

    python -m bench.own_answers FOLDER WIKITEXT [--recipe recipes/own_answers.toml]

FOLDER keeps the prepared data, the run and the adapter; a second call goes on where the first ended. Measured before
and after, with the adapter on the model as it is served (Q4_1): the loss of held-out questions (other words, same
facts), how many are answered with the fact, and perplexity of the first 60 kB of a text that has nothing to do with it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.training import evaluations, trained
from openherd.llm import LLM
from openherd.options import EngineOptions, SamplingParams
from openherd.train.model.lora_files import write_adapter
from openherd.train.prepare import WeightedPath, prepare
from openherd.train.tokenizer_source import open_tokenizer

HERE = Path(__file__).parents[1] / "recipes"
TEXT_BYTES = 60_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("text", type=Path, help="WikiText-2's raw test text, or another")
    arguments.add_argument("--recipe", type=Path, default=HERE / "own_answers.toml")
    arguments.add_argument("--text-bytes", type=int, default=TEXT_BYTES)
    arguments.add_argument("--mix", type=Path, default=HERE / "data" / "books", help="general text to train on as well")
    arguments.add_argument("--mix-weight", type=float, default=0.001, help="share of it drawn an epoch; 0: none")
    arguments.add_argument("--threads", type=int, default=2)
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    adapter = train(given)
    print(json.dumps(measure(adapter, given.text, given.text_bytes, given.threads), indent=1))


def train(given: argparse.Namespace) -> Path:
    """Prepare, train, write the adapter; returns its folder."""
    sources = [WeightedPath(HERE / "data" / "own_answers.jsonl")]
    if given.mix_weight:
        sources.append(WeightedPath(given.mix, given.mix_weight))
    train_on = tokens(given.folder / "train", sources)
    held_out = tokens(given.folder / "held_out", [WeightedPath(HERE / "data" / "own_answers_held_out.jsonl")])
    trainer = trained(given.recipe, given.folder, train_on, held_out, given.threads, show)
    write_adapter(trainer.model, given.folder / "adapter", "smollm2")
    for entry in evaluations(given.folder):
        print(f"step {entry['step']}: held-out loss {entry['loss']:.4f}", flush=True)
    return Path(given.folder / "adapter")


def tokens(folder: Path, sources: list[WeightedPath]) -> Path:
    if not folder.exists():
        source = open_tokenizer(None)
        tokenizer = source.tokenizer()
        prepare(sources, folder, tokenizer, source.chat_template(tokenizer))
    return folder


def show(step: int, metrics: object) -> None:
    assert isinstance(metrics, dict)
    print(f"step {step}: loss {metrics['loss']:.4f}, {metrics['tokens_per_s']:.0f} tokens/s", flush=True)


def measure(adapter: Path, text: Path, text_bytes: int, threads: int) -> dict[str, object]:
    facts = [json.loads(line) for line in (HERE / "data" / "own_answers_facts.jsonl").read_text().splitlines()]
    passage = text.read_bytes()[:text_bytes].decode("utf-8", "ignore")
    greedy = SamplingParams(temperature=0.0, max_tokens=48)
    found: dict[str, object] = {}
    with LLM.load(None, adapters={"own": adapter}, options=EngineOptions(threads=threads)) as llm:
        for name, which in (("before", None), ("after", "own")):
            prompts = [[{"role": "user", "content": fact["prompt"]}] for fact in facts]
            answers = [completion.text for completion in llm.generate(prompts, greedy, adapter=which)]
            right = [fact["answer"].lower() in answer.lower() for fact, answer in zip(facts, answers, strict=True)]
            found[name] = {
                "answered": f"{sum(right)}/{len(right)}",
                "perplexity": llm.score(passage, adapter=which).perplexity,
                "answers": answers,
            }
    before, after = found["before"], found["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    found["perplexity_rise"] = f"{100 * (after['perplexity'] / before['perplexity'] - 1):.2f} %"
    return found


if __name__ == "__main__":
    main()
