"""Speculation by prompt lookup against plain decoding: `python -m bench.speculation [MODEL]`.

Each of the 30 prompts in `speculation_prompts.toml` is answered plainly and with speculation, in turn, in one
conversation of its own; the decode speeds (tokens after the first, a second) and their ratio are reported, and the
medians of the copy-heavy prompts and of the chats. Both answers must be equal in token ids and in the bits of the
log-probabilities, else the exit status is 1. Prompts are prefilled anew each time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from openherd import LLM, Completion, Message, SamplingParams
from openherd.options import EngineOptions

PROMPTS = Path(__file__).with_name("speculation_prompts.toml")


@dataclass(frozen=True, slots=True)
class Prompt:
    name: str
    kind: str  # copy | chat
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """One prompt's medians over the rounds."""

    name: str
    kind: str
    num_tokens: int
    drafted: int
    accepted: int
    plain_tokens_per_s: float
    speculative_tokens_per_s: float
    ratio: float  # median of the rounds' ratios
    equal: bool


def load_prompts() -> list[Prompt]:
    return [Prompt(**entry) for entry in tomllib.loads(PROMPTS.read_text())["prompt"]]


def measure(model: LLM, prompt: Prompt, params: SamplingParams, rounds: int) -> Result:
    """Answer the prompt both ways, `rounds` times, the order changing from round to round."""
    plain: list[Completion] = []
    speculative: list[Completion] = []
    ways = [(plain, replace(params, speculate=False)), (speculative, replace(params, speculate=True))]
    for i in range(rounds):
        for completions, way in ways if i % 2 == 0 else reversed(ways):
            completions.append(model.chat([Message("user", prompt.text.strip())], way))
    speeds = [[c.timing["decode_tokens_per_s"] for c in completions] for completions in (plain, speculative)]
    usage = speculative[0].usage
    return Result(
        prompt.name,
        prompt.kind,
        usage.completion_tokens,
        usage.drafted_tokens,
        usage.accepted_tokens,
        round(statistics.median(speeds[0]), 1),
        round(statistics.median(speeds[1]), 1),
        round(statistics.median(fast / slow for slow, fast in zip(*speeds, strict=True)), 3),
        len({(c.token_ids, c.logprobs, c.finish_reason) for c in plain + speculative}) == 1,
    )


def medians(results: list[Result]) -> dict[str, float]:
    """The median ratio of each kind of prompt."""
    kinds = sorted({result.kind for result in results})
    return {kind: statistics.median(r.ratio for r in results if r.kind == kind) for kind in kinds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a catalogue name or a file; none: the default model")
    parser.add_argument("--rounds", type=int, default=1, help="answers of each kind to each prompt")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    args = parser.parse_args()
    params = SamplingParams(max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed, logprobs=0)
    with LLM.load(args.model, options=EngineOptions(threads=args.threads, prefix_caching=False)) as model:
        model.chat([Message("user", "hi")], replace(params, max_tokens=8))  # memory touched
        results = [measure(model, prompt, params, args.rounds) for prompt in load_prompts()]
        report = {
            "model": model.name,
            "numerics_id": model.numerics_id,
            "temperature": args.temperature,
            "max_tokens": args.max_tokens,
            "rounds": args.rounds,
            "median_ratio": medians(results),
            "equal": all(result.equal for result in results),
            "prompts": [asdict(result) for result in results],
        }
    print(json.dumps(report) if args.json else _table(results))
    return 0 if report["equal"] else 1


def _table(results: list[Result]) -> str:
    lines = [f"{'prompt':22} {'tokens':>6} {'drafted':>7} {'right':>5} {'plain':>6} {'spec.':>6} {'ratio':>6}  bits"]
    for r in results:
        speeds = f"{r.plain_tokens_per_s:6.0f} {r.speculative_tokens_per_s:6.0f} {r.ratio:6.2f}"
        counts = f"{r.num_tokens:6} {r.drafted:7} {r.accepted:5}"
        lines.append(f"{r.name:22} {counts} {speeds}  {'equal' if r.equal else 'DIFFERENT'}")
    for kind, ratio in medians(results).items():
        worst = min(r.ratio for r in results if r.kind == kind)
        lines.append(f"{kind}: median ratio {ratio:.2f}, least {worst:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
