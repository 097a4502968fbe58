"""Writes tests/train/expected/trl.json: losses of 50 steps of trl's trainers on the tiny model (bar T12).

    PYTHONPATH=. python tests/train/make_trl_expected.py     with trl, peft, transformers and torch installed

Weights and rows are functions of names (see objectives/tiny.py), so that nothing large is kept. The trainers tokenize
nothing: they are given ids.
"""

from __future__ import annotations

import json
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.train.objectives import tiny

OUT = Path(__file__).parent / "expected" / "trl.json"


def main() -> None:
    torch.set_num_threads(1)
    losses = {
        "sft": sft(model(), tiny.LEARNING_RATE),
        "sft_lora": sft(adapted(), tiny.LORA_LEARNING_RATE),
        "dpo": dpo(model(), tiny.LEARNING_RATE / 10),
        "dpo_lora": dpo(adapted(), tiny.LORA_LEARNING_RATE),
    }
    made_with = {
        name: module.__version__
        for name, module in (("trl", trl), ("peft", peft), ("transformers", transformers), ("torch", torch))
    }
    OUT.write_text(json.dumps({"made_with": made_with, "losses": losses}, indent=1) + "\n")


def model() -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=tiny.DIM,
        num_hidden_layers=tiny.LAYERS,
        num_attention_heads=tiny.HEADS,
        num_key_value_heads=tiny.KV_HEADS,
        intermediate_size=tiny.FFN,
        vocab_size=tiny.VOCAB,
        max_position_embeddings=tiny.CONTEXT,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        attn_implementation="eager",
    )
    made = LlamaForCausalLM(config).float()
    made.load_state_dict({name: torch.from_numpy(array) for name, array in tiny.weights().items()}, strict=True)
    return made


def adapted() -> Any:
    lora = peft.LoraConfig(
        r=tiny.LORA_RANK,
        lora_alpha=tiny.LORA_ALPHA,
        target_modules=list(tiny.LORA_TARGETS),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    made = peft.get_peft_model(model(), lora)
    parameters = dict(made.named_parameters())
    for name, array in tiny.lora_weights().items():
        place = "base_model.model." + name.replace(".weight", ".default.weight")
        parameters[place].data.copy_(torch.from_numpy(array))
    return made


def sft(made: Any, learning_rate: float) -> list[float]:
    rows = [
        {"input_ids": ids, "completion_mask": [0] * given + [1] * (len(ids) - given)} for ids, given in tiny.sft_rows()
    ]
    trainer = Sft(
        model=made,
        args=trl.SFTConfig(
            **arguments(learning_rate, rows=2, accumulated=2), completion_only_loss=True, max_length=None
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    return run(trainer)


def dpo(made: Any, learning_rate: float) -> list[float]:
    rows = [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in tiny.pairs()]
    trainer = GivenIds(
        model=made,
        ref_model=None if isinstance(made, peft.PeftModel) else deepcopy(made),
        args=trl.DPOConfig(**arguments(learning_rate, rows=1, accumulated=2), beta=tiny.DPO_BETA, max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    return run(trainer)


class NoDecayOfEmbeddings:
    """As openherd has it; everything else about weight decay is the trainers' own."""

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        names: list[str] = super().get_decay_parameter_names(model)  # type: ignore[misc]
        return [name for name in names if "embed_tokens" not in name]


class Sft(NoDecayOfEmbeddings, trl.SFTTrainer):
    pass


class GivenIds(NoDecayOfEmbeddings, trl.DPOTrainer):
    """The rows are ids already."""

    def _prepare_dataset(self, dataset: Any, *given: Any, **named: Any) -> Any:
        return dataset


def arguments(learning_rate: float, *, rows: int, accumulated: int) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": tiny.STEPS,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": tiny.WEIGHT_DECAY,
        "adam_beta1": tiny.BETAS[0],
        "adam_beta2": tiny.BETAS[1],
        "adam_epsilon": tiny.EPS,
        "max_grad_norm": tiny.MAX_GRAD_NORM,
        "optim": "adamw_torch",
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulated,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "seed": 0,
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }


def tokenizer() -> PreTrainedTokenizerFast:
    """Never used but for its padding id."""
    vocabulary = {f"t{i}": i for i in range(tiny.VOCAB)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="t2"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="t0", eos_token="t1", unk_token="t2")


def run(trainer: Any) -> list[float]:
    """Its losses, in full: the log has the mean of what each step's micro-batches gave."""
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    main()
