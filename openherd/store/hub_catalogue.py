"""Open models of a hub under short names.

They are pinned when they are first fetched: the record names the commit, and every file must have the checksum that the
hub publishes for that commit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubEntry:
    """A model of a hub under a short name. `about_bytes` is rounded, for people; the hub says the size at a fetch."""

    name: str
    title: str
    licence: str
    about_bytes: int
    reference: str


# Written from public knowledge of these repositories, without a hub in reach: NOT checked against it. Nothing rests on
# these lines: a repository or file that is not there is an error before anything is fetched, and the size, licence and
# checksums that count are the hub's at the time of the fetch.
HUB_CATALOGUE: dict[str, HubEntry] = {
    name: HubEntry(name, title, licence, about_bytes, reference)
    for name, title, licence, about_bytes, reference in [
        (
            "openllama-3b",
            "OpenLLaMA 3B v2 (Llama 1's architecture, not tuned for talk)",
            "Apache-2.0",
            6_900_000_000,
            "hf:openlm-research/open_llama_3b_v2",
        ),
        (
            "llama-2-7b",
            "Llama 2 7B Chat, Q4_K_M",
            "Llama 2 Community",
            4_100_000_000,
            "hf:TheBloke/Llama-2-7B-Chat-GGUF:Q4_K_M",
        ),
        (
            "llama-3.1-8b",
            "Llama 3.1 8B Instruct, Q4_K_M",
            "Llama 3.1 Community",
            4_900_000_000,
            "hf:bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M",
        ),
        (
            "llama-3.2-1b",
            "Llama 3.2 1B Instruct, Q4_K_M",
            "Llama 3.2 Community",
            810_000_000,
            "hf:bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",
        ),
        (
            "llama-3.2-3b",
            "Llama 3.2 3B Instruct, Q4_K_M",
            "Llama 3.2 Community",
            2_000_000_000,
            "hf:bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
        ),
        (
            "smollm-135m",
            "SmolLM 135M Instruct, bfloat16",
            "Apache-2.0",
            270_000_000,
            "hf:HuggingFaceTB/SmolLM-135M-Instruct:safetensors",
        ),
        (
            "smollm2-1.7b",
            "SmolLM2 1.7B Instruct, Q4_K_M",
            "Apache-2.0",
            1_100_000_000,
            "hf:HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF:Q4_K_M",
        ),
        ("smollm3-3b", "SmolLM3 3B, Q4_K_M", "Apache-2.0", 1_900_000_000, "hf:ggml-org/SmolLM3-3B-GGUF:Q4_K_M"),
        (
            "mistral-7b",
            "Mistral 7B Instruct v0.3, Q4_K_M",
            "Apache-2.0",
            4_400_000_000,
            "hf:bartowski/Mistral-7B-Instruct-v0.3-GGUF:Q4_K_M",
        ),
        (
            "qwen2-0.5b",
            "Qwen2 0.5B Instruct, Q4_K_M",
            "Apache-2.0",
            400_000_000,
            "hf:Qwen/Qwen2-0.5B-Instruct-GGUF:Q4_K_M",
        ),
        (
            "qwen2.5-1.5b",
            "Qwen2.5 1.5B Instruct, Q4_K_M",
            "Apache-2.0",
            1_100_000_000,
            "hf:Qwen/Qwen2.5-1.5B-Instruct-GGUF:Q4_K_M",
        ),
        ("qwen3-0.6b", "Qwen3 0.6B, Q8_0", "Apache-2.0", 640_000_000, "hf:Qwen/Qwen3-0.6B-GGUF:Q8_0"),
        ("qwen3-4b", "Qwen3 4B, Q4_K_M", "Apache-2.0", 2_500_000_000, "hf:Qwen/Qwen3-4B-GGUF:Q4_K_M"),
        ("gemma-2-2b", "Gemma 2 2B IT, Q4_K_M", "Gemma", 1_700_000_000, "hf:bartowski/gemma-2-2b-it-GGUF:Q4_K_M"),
        ("gemma-3-1b", "Gemma 3 1B IT, Q4_K_M", "Gemma", 810_000_000, "hf:ggml-org/gemma-3-1b-it-GGUF:Q4_K_M"),
        (
            "phi-3-mini",
            "Phi-3 mini 4k Instruct (3.8B), Q4",
            "MIT",
            2_400_000_000,
            "hf:microsoft/Phi-3-mini-4k-instruct-gguf:Phi-3-mini-4k-instruct-q4.gguf",
        ),
        (
            "falcon3-1b",
            "Falcon 3 1B Instruct, Q4_K_M",
            "Falcon LLM 2.0",
            1_100_000_000,
            "hf:tiiuae/Falcon3-1B-Instruct-GGUF:Q4_K_M",
        ),
    ]
}
