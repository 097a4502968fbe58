"""Write the small checkpoints of `readers/`, with transformers' logits; `make_tokenizer_cases.py` has their ids.

Run in an environment with torch, transformers and sentencepiece, from the repository's root:
    PYTHONPATH=. python tests/parity/make_reader_cases.py
"""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.parity.random_llama import RandomUniform
from tests.parity.reader_cases import FOLDER, RECORDED, SEED, VOCAB, prompts
from tests.parity.token_strings import SENTENCES

DIM, LAYERS, HEADS, FFN = 16, 2, 4, 48
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
           "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
           "<|eot_id|>", "<|python_tag|>"]  # fmt: skip
RANKS = VOCAB - len(SPECIAL)
ENGLISH = Path(__file__).with_name("alice.txt").read_text(encoding="utf-8").splitlines()
TEXT = [*SENTENCES, *ENGLISH]
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<|eot_id|>{% endfor %}"
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# Name: what is its own of config, params.json and storage.
GENERATIONS: dict[str, dict[str, Any]] = {
    "llama1": {"kv": 4, "eps": 1e-6, "rope": DEFAULT_ROPE, "context": 2048, "dtype": torch.float16},
    "llama2": {"kv": 2, "eps": 1e-5, "rope": DEFAULT_ROPE, "context": 4096, "dtype": torch.float16},
    "llama3": {"kv": 2, "eps": 1e-5, "rope": LLAMA3_ROPE, "context": 131072, "dtype": torch.bfloat16},
}
State = dict[str, torch.Tensor]


def make_model(name: str) -> LlamaForCausalLM:
    """A model of random weights that its storage type holds exactly."""
    g = GENERATIONS[name]
    config = LlamaConfig(
        hidden_size=DIM, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=g["kv"],
        intermediate_size=FFN, vocab_size=VOCAB, max_position_embeddings=g["context"], rms_norm_eps=g["eps"],
        rope_parameters=g["rope"], tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
        attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    uniform = RandomUniform(SEED + len(name) + int(name[-1]))
    state = {}
    for key, value in sorted(model.state_dict().items()):
        shape = tuple(value.shape)
        scale = 1.0 if "embed" in key else 1.5 / np.sqrt(shape[-1])
        array = (
            uniform.array(shape, mean=1.0, deviation=0.1) if "norm" in key else uniform.array(shape, deviation=scale)
        )
        state[key] = torch.from_numpy(array).to(g["dtype"]).float()
    model.load_state_dict(state)
    return model


def logits(model: LlamaForCausalLM) -> np.ndarray:
    with torch.inference_mode():
        rows = [model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0] for ids in prompts()]
    return np.stack([row[list(RECORDED)].numpy() for row in rows])


META_NAMES = {
    "model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output",
    "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}  # fmt: skip


def meta_state(model: LlamaForCausalLM, dtype: torch.dtype) -> State:
    """Meta's names, and rows of queries and keys in pairs: the inverse of transformers' conversion script."""
    head = DIM // HEADS
    state = {}
    for key, value in model.state_dict().items():
        stem = key.removesuffix(".weight").removeprefix("model.layers.")
        layer, _, rest = stem.partition(".") if stem[0].isdigit() else ("", "", stem)
        name = META_NAMES[rest]
        if rest.endswith(("q_proj", "k_proj")):
            value = value.view(-1, 2, head // 2, DIM).transpose(1, 2).reshape(value.shape)
        state[f"layers.{layer}.{name}.weight" if layer else f"{name}.weight"] = value.to(dtype)
    return state


def write_meta(folder: Path, name: str, model: LlamaForCausalLM, parts: int) -> None:
    g = GENERATIONS[name]
    folder.mkdir(parents=True)
    state = meta_state(model, g["dtype"])
    state["rope.freqs"] = torch.ones(DIM // HEADS // 2, dtype=g["dtype"])
    for part in range(parts):
        shard = {key: split(key, value, name, parts)[part].clone() for key, value in state.items()}
        torch.save(shard, folder / f"consolidated.{part:02}.pth")
    params = {
        "dim": DIM,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "norm_eps": g["eps"],
        "multiple_of": 16,
        "vocab_size": -1,
    }
    if name != "llama1":
        params |= {"n_kv_heads": g["kv"], "ffn_dim_multiplier": 1.1}  # 1.1 * 42 = 46, rounded to 48 like 42
    if name == "llama3":
        params |= {"vocab_size": VOCAB, "rope_theta": 500000.0, "use_scaled_rope": True, "rope_scaling_factor": 32.0}
    (folder / "params.json").write_text(json.dumps(params))


def split(key: str, value: torch.Tensor, name: str, parts: int) -> list[torch.Tensor]:
    """As fairscale's layers are split between the ranks."""
    if value.ndim == 1:
        return [value] * parts
    by_columns = key.endswith(("wo.weight", "w2.weight")) or ("tok_emb" in key and name != "llama3")
    return list(value.chunk(parts, dim=1 if by_columns else 0))


def train_sentencepiece(folder: Path) -> Path:
    """A BPE model with Llama's own settings."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH), model_prefix=str(folder / "spm"), model_type="bpe", vocab_size=VOCAB,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=1.0, minloglevel=2, num_threads=1,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto.FromString((folder / "spm.model").read_bytes())
    model.trainer_spec.ClearField("model_prefix")  # a folder of this machine
    (folder / "spm.model").write_bytes(model.SerializeToString())
    return folder / "spm.model"


def llama3_words() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train_ranks() -> tuple[dict[bytes, int], list[tuple[str, str]], dict[str, int]]:
    """(tiktoken's ranks, merges, vocabulary in the printable alphabet) of a small byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = llama3_words()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=RANKS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    char_bytes = {char: byte for byte, char in tiktoken_alphabet().items()}
    by_id = sorted(model["vocab"], key=model["vocab"].get)
    ranks = {bytes(char_bytes[c] for c in token): i for i, token in enumerate(by_id)}
    return ranks, [tuple(m) for m in model["merges"]], model["vocab"]


def tiktoken_alphabet() -> dict[int, str]:
    """GPT-2's printable alphabet, from transformers' own table."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return bytes_to_unicode()


def hf_bpe(merges: list[tuple[str, str]], vocab: dict[str, int]) -> Tokenizer:
    """As Llama 3's tokenizer.json is made."""
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = llama3_words()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    bos = SPECIAL[0]
    begin = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    return tokenizer


def hf_spm(model: sentencepiece.SentencePieceProcessor, *, legacy: bool) -> Tokenizer:
    """As Llama 2's tokenizer.json is made, with merges in the order of scores."""
    vocab = {model.id_to_piece(i): i for i in range(model.vocab_size())}
    merges = sorted(
        ((vocab[piece], len(piece[:at]), piece[:at], piece[at:]) for piece in vocab for at in range(1, len(piece))
         if piece[:at] in vocab and piece[at:] in vocab), key=lambda m: (m[0], m[1]))  # fmt: skip
    tokenizer = Tokenizer(models.BPE(vocab, [(a, b) for _, _, a, b in merges], unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))  # fmt: skip
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])  # fmt: skip
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    # A token that takes the spaces after it, as Phi-3 has them, and one that text may spell.
    tokenizer.add_special_tokens([AddedToken("<|end|>", normalized=False, rstrip=True)])
    tokenizer.add_tokens([AddedToken("<pad>", normalized=False, lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def main() -> None:
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    FOLDER.mkdir()
    models_by_name = {name: make_model(name) for name in GENERATIONS}
    np.savez_compressed(FOLDER / "logits.npz", **{name: logits(model) for name, model in models_by_name.items()})
    ranks, merges, vocab = train_ranks()
    spm_file = train_sentencepiece(FOLDER)
    spm = sentencepiece.SentencePieceProcessor(model_file=str(spm_file))
    lines = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    for name, model in models_by_name.items():
        for parts, ending in ((1, ""), (2, "-2")):
            folder = FOLDER / f"{name}-meta{ending}"
            write_meta(folder, name, model, parts)
            if name == "llama3":
                (folder / "tokenizer.model").write_text(lines)
            else:
                shutil.copy(spm_file, folder / "tokenizer.model")
    write_hf(FOLDER / "llama3-hf", models_by_name["llama3"], hf_bpe(merges, vocab))
    write_bin(FOLDER / "llama2-hf-bin", models_by_name["llama2"], spm_file)
    for name, legacy in (("legacy", True), ("new", False)):
        folder = FOLDER / f"llama2-hf-{name}"
        folder.mkdir()
        tokenizer = hf_spm(spm, legacy=legacy)
        tokenizer.save(str(folder / "tokenizer.json"))
    spm_file.unlink()
    spm_file.with_suffix(".vocab").unlink()

    for file in FOLDER.glob("*/*"):
        file.chmod(0o644)


def write_hf(folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    """Sharded safetensors as transformers 5 saves them."""
    model.generation_config = GenerationConfig(eos_token_id=[RANKS + 1, RANKS + 8, RANKS + 9], bos_token_id=RANKS)
    model.config.eos_token_id, model.config.bos_token_id = RANKS + 1, RANKS
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="16KB")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[9])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA random model for tests.\n")


def write_bin(folder: Path, model: LlamaForCausalLM, spm_file: Path) -> None:
    """torch's files in two shards with an index, and the settings as transformers 4 wrote them."""
    folder.mkdir()
    state = {key: value.half() for key, value in model.state_dict().items()}
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)  # what old saves carried
    keys = sorted(state)
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": keys[i::2] for i in range(2)}
    for file, names in shards.items():
        torch.save({name: state[name].clone() for name in names}, folder / file)
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {name: file for file, names in shards.items() for name in names},
    }
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": DIM, "initializer_range": 0.02, "intermediate_size": FFN, "max_position_embeddings": 4096,
        "model_type": "llama", "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "num_key_value_heads": 2,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
        "torch_dtype": "float16", "transformers_version": "4.31.0", "use_cache": True, "vocab_size": VOCAB,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    settings = {"add_bos_token": True, "add_eos_token": False, "bos_token": {"content": "<s>"}, "legacy": True,
                "eos_token": {"content": "</s>"}, "unk_token": {"content": "<unk>"},
                "chat_template": [{"name": "tool_use", "template": "{{ tools }}"},
                                  {"name": "default", "template": "{{ bos_token }}[INST]{{ messages[0].content }}"}],
                "tokenizer_class": "LlamaTokenizer"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    shutil.copy(spm_file, folder / "tokenizer.model")


if __name__ == "__main__":
    main()
