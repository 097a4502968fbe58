"""The bars of speed and size, P1 to P10, and of the server: how each is judged from an occasion (bench/results.py).

Each judge returns (the figure as text, whether the bar holds); KeyError where its stage lacks the figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.peers import DECODE_TOKENS, LONG, LONG_TOKENS, OURS

Stages = dict[str, Any]
Judge = Callable[[Stages], tuple[str, bool]]
MB = 1e6


@dataclass(frozen=True, slots=True)
class Bar:
    id: str
    what: str
    wanted: str
    judge: Judge


def _ratio(stage: str, work: str, peer: str, least: float) -> Judge:
    def judge(stages: Stages) -> tuple[str, bool]:
        ratio = stages[stage]["works"][work][peer]["ratio"]
        return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})", ratio["median"] >= least

    return judge


def _ratio_to_best(stage: str, work: str, least: float) -> Judge:
    """To the peer that is fastest at it."""

    def judge(stages: Stages) -> tuple[str, bool]:
        peers = {name: figures for name, figures in stages[stage]["works"][work].items() if name != OURS}
        name = max(peers, key=lambda name: float(peers[name]["median"]))
        ratio = peers[name]["ratio"]
        return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) {name}", ratio["median"] >= least

    return judge


def _limit(stage: Stages, kind: str) -> float:
    """The machine's best rate over numbers of threads."""
    return max(float(figures["median"]) for name, figures in stage["limits"].items() if name.startswith(kind))


def _share_of_read(stage_name: str, least: float) -> Judge:
    def judge(stages: Stages) -> tuple[str, bool]:
        stage = stages[stage_name]
        bytes_per_token = stage["weight_bytes_per_token"] + DECODE_TOKENS / 2 * stage["kv_bytes_per_token"]
        share = stage["works"]["decode"][OURS]["median"] * bytes_per_token / _limit(stage, "read_")
        return f"{100 * share:.0f} %", share >= least

    return judge


def _share_of_int8(stage_name: str, least: float) -> Judge:
    def judge(stages: Stages) -> tuple[str, bool]:
        stage = stages[stage_name]
        rate = stage["works"]["prefill_512"][OURS]["median"] * stage["layer_products_per_token"]
        share = rate / _limit(stage, "int8_")
        return f"{100 * share:.0f} %", share >= least

    return judge


def _long_context(stages: Stages) -> tuple[str, bool]:
    stage = stages["long"]
    works, weights, kv = stage["works"], stage["weight_bytes_per_token"], stage["kv_bytes_per_token"]
    slowdown = works["decode"][OURS]["median"] / works[f"decode_at_{LONG}"][OURS]["median"]
    explained = (weights + kv * (LONG + LONG_TOKENS / 2)) / (weights + kv * DECODE_TOKENS / 2)
    return f"{slowdown:.2f}x, bytes {explained:.2f}x", slowdown <= explained


def _measured(stages: Stages, name: str) -> float:
    return next(float(m["value"]) for m in stages["bench"]["measurements"] if m["name"] == name)


def _start(stages: Stages) -> tuple[str, bool]:
    seconds = _measured(stages, "cold_start")
    return f"{seconds:.2f} s", seconds <= 0.45


def _memory(stages: Stages) -> tuple[str, bool]:
    model, peak = stages["bench"]["model"], _measured(stages, "peak_memory") * MB
    bar = 1.3 * model["file_bytes"] + 2048 * model["kv_bytes_per_token"] + 60 * MB
    return f"{peak / MB:.0f} of {bar / MB:.0f} MB", peak <= bar


def _size(stages: Stages) -> tuple[str, bool]:
    size = stages["size"]["installed_bytes"]
    return f"{size / MB:.0f} MB", size <= 180 * MB


def _speculation(kind: str, least: float) -> Judge:
    def judge(stages: Stages) -> tuple[str, bool]:
        stage = stages["speculation"]
        ratio = stage["median_ratio"][kind]
        return f"{ratio:.2f}x", ratio >= least and stage["equal"] is True

    return judge


def _python(name: str) -> Judge:
    def judge(stages: Stages) -> tuple[str, bool]:
        share = _measured(stages, name)
        return f"{share:.1f} %", share <= 5

    return judge


def _quality(stages: Stages) -> tuple[str, bool]:
    stage = stages["quality"]
    fewer = 100 * (stage["llama.cpp"]["same_top"] - stage["native"]["same_top"])
    holds = stage["kl_ratio"] <= 1.05 and fewer <= 0.3
    return f"{stage['native']['mean_kl']:.5f}, {stage['kl_ratio']:.2f}x; same top {-fewer:+.1f} points", holds


def _server(load: str, figure: str, least: float) -> Judge:
    """Ratios of which more than 1 is in favour of openherd; both must have written the same numbers of tokens."""

    def judge(stages: Stages) -> tuple[str, bool]:
        found = stages["server"]["loads"][load]
        ratio = found["ratios"][figure]
        holds = ratio["median"] >= least and found["same_tokens"] and not any(found["failed"].values())
        return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})", holds

    return judge


BARS = (
    Bar("P1", "decode against llama.cpp", ">= 2.0", _ratio("peers", "decode", "llama.cpp", 2.0)),
    Bar("P1", "decode against ik_llama.cpp", ">= 1.6", _ratio("peers", "decode", "ik_llama.cpp", 1.6)),
    Bar("P1", "decode, share of the read rate", ">= 85 %", _share_of_read("peers", 0.85)),
    Bar("P2", "prefill 512 against the best peer", ">= 1.5", _ratio_to_best("peers", "prefill_512", 1.5)),
    Bar("P2", "prefill 512, share of the int8 peak", ">= 45 %", _share_of_int8("peers", 0.45)),
    Bar("P3", "32 sequences, Q4_0, against llama.cpp", ">= 4", _ratio("batch", "decode_batch_32", "llama.cpp", 4.0)),
    Bar("P4", "decode at 4k of context, slowdown", "<= KV bytes explain", _long_context),
    Bar("P5", "`herd run -p hi --max-tokens 1`", "<= 0.45 s", _start),
    Bar("P6", "peak memory at 2k of context", "<= 1.3 file + KV + 60 MB", _memory),
    Bar("P7", "installed without extras", "<= 180 MB", _size),
    Bar("P8", "speculation, copy-heavy median", ">= 1.8, bit-equal", _speculation("copy", 1.8)),
    Bar("P8", "speculation, open chat median", ">= 0.98, bit-equal", _speculation("chat", 0.98)),
    Bar("P9", "Python's share, batch 1", "<= 5 %", _python("python_share")),
    Bar("P9", "Python's share, batch 32", "<= 5 %", _python("python_share_batch_32")),
    Bar("P10", "KL to float32, against llama.cpp's", "<= 1.05x, within 0.3 points", _quality),
    Bar("server", "16 users, tokens/s against llama.cpp's", ">= 3", _server("users_16", "output_throughput", 3.0)),
    Bar("server", "32 users, tokens/s against llama.cpp's", ">= 3", _server("users_32", "output_throughput", 3.0)),
    Bar("server", "p99 TTFT at equal load, llama.cpp's / ours", ">= 1", _server("open_loop", "ttft_p99", 1.0)),
    Bar(
        "AVX2", "decode without AVX-512 against llama.cpp without", ">= 1.0", _ratio("avx2", "decode", "llama.cpp", 1.0)
    ),
    *(
        bar
        for stage, file in (("large_q4_0", "1B Q4_0"), ("large_q4_k", "1B Q4_K"))
        for bar in (
            Bar("P1", f"{file}: decode against llama.cpp", ">= 2.0", _ratio(stage, "decode", "llama.cpp", 2.0)),
            Bar("P1", f"{file}: decode against ik_llama.cpp", ">= 1.6", _ratio(stage, "decode", "ik_llama.cpp", 1.6)),
            Bar(
                "P2", f"{file}: prefill 512 against the best peer", ">= 1.5", _ratio_to_best(stage, "prefill_512", 1.5)
            ),
        )
    ),
)
