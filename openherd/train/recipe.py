"""The recipe of a run: every choice that training makes, in frozen dataclasses that each own their defaults.

A recipe is written as TOML (`recipe_file`) or given as flags of the same names, and `presets.resolve` fills what is
left to be derived: 0, 0.0 or "" in a field whose help says so. Keys are written `section.name` in errors, as in
`optimizer.learning_rate`; no two sections share a name, so that each is one flag.

Not covered: which keys go together, which `recipe_checks` knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openherd.errors import OptionError

ObjectiveName = Literal["pretrain", "sft", "dpo", "grpo"]
PresetName = Literal["", "nano", "tiny", "small", "1b", "8b"]
ScheduleName = Literal["cosine", "wsd", "constant"]
Dtype = Literal["", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
BaseType = Literal["", "q8_0", "q4_1", "q4_0"]

_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """What is trained: a model to start from, or the shape of a new one."""

    init: str = ""
    """Start from this model's weights, a catalogue name, a file or a folder; empty: new weights."""
    preset: PresetName = ""
    """Shape, batch, learning rate and horizon in one word; whatever else is given wins over it."""
    depth: int = 0
    """Layers of a new model, from which its shape, batch, learning rate and horizon follow; 0: the preset's."""
    tokenizer: str = ""
    """The tokenizer of a new model: a folder that herd train tokenizer wrote, or a model; empty: that of init."""
    template: str = ""
    """Another chat template, a file or a built-in name, with which the data was prepared; empty: the model's own."""
    dim: int = 0
    """Width of the residual stream; 0: derived."""
    n_layers: int = 0
    """Layers; 0: derived."""
    n_heads: int = 0
    """Query heads; 0: derived."""
    n_kv_heads: int = 0
    """Key and value heads; 0: derived."""
    head_dim: int = 0
    """Width of a head; 0: derived."""
    ffn_dim: int = 0
    """Width of the feed-forward; 0: derived."""
    max_seq_len: int = 0
    """Context the new model is made for; 0: derived."""
    rope_theta: float = 0.0
    """Base of the rotary frequencies; 0: derived."""
    embeddings: Literal["", "tied", "separate"] = ""
    """Whether the output map is the embedding; empty: derived."""

    def __post_init__(self) -> None:
        _choice("model.preset", self.preset, ("", "nano", "tiny", "small", "1b", "8b"))
        _choice("model.embeddings", self.embeddings, ("", "tied", "separate"))
        _whole("model.depth", self.depth, 0, 256)
        for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim", "max_seq_len"):
            _whole(f"model.{name}", getattr(self, name), 0, 2**20 if name != "n_layers" else 4096)
        _number("model.rope_theta", self.rope_theta, 0.0, 1e12)


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """What is learnt from, as herd train prepare wrote it."""

    train: tuple[Path, ...] = ()
    """Folder of prepared data to learn from; may be given again."""
    evaluation: tuple[Path, ...] = ()
    """Folder of prepared data to measure on; may be given again."""
    seq_len: int = 0
    """Tokens in a row; 0: derived."""
    pack: bool = True
    """Put several documents into a row, each blind to the others."""

    def __post_init__(self) -> None:
        _whole("data.seq_len", self.seq_len, 0, 2**20)


@dataclass(frozen=True, slots=True)
class OptimizerRecipe:
    """How weights move: AdamW (Loshchilov and Hutter 2019)."""

    learning_rate: float = 0.0
    """Peak learning rate; 0: derived."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises; 0: derived, 1: none."""
    schedule: ScheduleName = "cosine"
    """After the warm-up: cosine falls all the way, wsd stays and falls over the last fifth, constant stays."""
    final_share: float = 0.1
    """The last learning rate, as a share of the peak."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices; norms, biases and the embedding table have none."""
    beta1: float = 0.9
    """Decay of the mean of gradients."""
    beta2: float = 0.95
    """Decay of the mean of squared gradients."""
    eps: float = 1e-8
    """Added to the root of the mean of squared gradients."""
    max_grad_norm: float = 1.0
    """Scale gradients down to this norm; 0: never."""

    def __post_init__(self) -> None:
        _choice("optimizer.schedule", self.schedule, ("cosine", "wsd", "constant"))
        _whole("optimizer.warmup_steps", self.warmup_steps, 0, _MAX_COUNT)
        for name, low, high in (
            ("learning_rate", 0.0, 10.0),
            ("final_share", 0.0, 1.0),
            ("weight_decay", 0.0, 10.0),
            ("beta1", 0.0, 0.9999),
            ("beta2", 0.0, 0.99999),
            ("eps", 1e-20, 1.0),
            ("max_grad_norm", 0.0, 1e9),
        ):
            _number(f"optimizer.{name}", getattr(self, name), low, high)


@dataclass(frozen=True, slots=True)
class RunRecipe:
    """How long, on what, and what is kept."""

    out: Path = Path("run")
    """The run's folder: checkpoints, logs, samples, report. A run that is there goes on."""
    steps: int = 0
    """Updates of the weights; 0: derived."""
    rows_per_step: int = 0
    """Rows that one update learns from, on all devices together; for dpo pairs, for grpo answers. 0: derived."""
    micro_rows: int = 0
    """Rows computed at once on a device, a pair of dpo being two: less memory, not another result. 0: derived."""
    seed: int = 0
    """Seed of new weights, of the order of the data and of samples."""
    dtype: Dtype = ""
    """Number type of the matrix products; empty: bfloat16 on GPUs, float32 elsewhere."""
    device: Device = "auto"
    """What computes; auto: a GPU where there is one."""
    compile: bool = False
    """Compile the model with torch.compile first."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    threads: int = 0
    """Compute threads; 0: one for each core this process may use."""
    tensor_parallel: int = 1
    """Processes that share each matrix, of those that torchrun starts."""
    log_every: int = 1
    """Steps between lines of the log."""
    eval_every: int = 0
    """Steps between evaluations; 0: a tenth of the run."""
    sample_every: int = 0
    """Steps between samples of text; 0: a tenth of the run."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: derived."""
    keep: int = 2
    """Newest checkpoints to keep, beside the best."""
    spike_factor: float = 3.0
    """Skip a step whose loss exceeds this many times the recent median; 0: never."""

    def __post_init__(self) -> None:
        _choice("run.dtype", self.dtype, ("", "float32", "bfloat16"))
        _choice("run.device", self.device, ("auto", "cpu", "cuda"))
        for name in ("steps", "rows_per_step", "micro_rows", "eval_every", "sample_every", "checkpoint_every"):
            _whole(f"run.{name}", getattr(self, name), 0, _MAX_COUNT)
        _whole("run.seed", self.seed, 0, 2**63 - 1)
        _whole("run.threads", self.threads, 0, 1024)
        _whole("run.tensor_parallel", self.tensor_parallel, 1, 1024)
        _whole("run.log_every", self.log_every, 1, _MAX_COUNT)
        _whole("run.keep", self.keep, 1, _MAX_COUNT)
        _number("run.spike_factor", self.spike_factor, 0.0, 1e9)


@dataclass(frozen=True, slots=True)
class LoraRecipe:
    """Low-rank adaptation (Hu et al. 2021) of frozen weights, which may lie in blocks of few bits (QLoRA, Dettmers et
    al. 2023)."""

    rank: int = 0
    """Rank of the update of each matrix; 0: train all weights."""
    alpha: float = 0.0
    """The update is scaled by alpha / rank; 0: twice the rank."""
    targets: tuple[str, ...] = ()
    """Linear maps that get an update, such as q_proj; none: all that the model's layers have. May be given again."""
    base_type: BaseType = ""
    """Block type of the frozen weights; empty: as they are computed with."""

    def __post_init__(self) -> None:
        _whole("lora.rank", self.rank, 0, 4096)
        _number("lora.alpha", self.alpha, 0.0, 1e6)
        _choice("lora.base_type", self.base_type, ("", "q8_0", "q4_1", "q4_0"))


@dataclass(frozen=True, slots=True)
class DpoRecipe:
    """Direct preference optimisation (Rafailov et al. 2023)."""

    beta: float = 0.1
    """How closely the trained model is held to the one it started from."""
    label_smoothing: float = 0.0
    """The share of pairs that are taken to be the wrong way round."""

    def __post_init__(self) -> None:
        _number("dpo.beta", self.beta, 1e-6, 100.0)
        _number("dpo.label_smoothing", self.label_smoothing, 0.0, 0.49)  # at 0.5 no pair would say anything


@dataclass(frozen=True, slots=True)
class GrpoRecipe:
    """Group-relative policy optimisation (Shao et al. 2024) for answers that can be checked."""

    prompts: tuple[Path, ...] = ()
    """JSONL of questions with the answers that are right; may be given again."""
    reward: str = "exact"
    """What checks an answer."""
    group: int = 8
    """Answers to each question, which are compared with each other."""
    max_new_tokens: int = 256
    """Most tokens of an answer."""
    temperature: float = 1.0
    """Spread of the answers."""
    clip: float = 0.2
    """How far one update may move the probability of a token."""
    kl: float = 0.0
    """How closely the trained model is held to the one it started from."""

    def __post_init__(self) -> None:
        _whole("grpo.group", self.group, 2, 128)  # as many choices as a request may have
        _whole("grpo.max_new_tokens", self.max_new_tokens, 1, 2**20)
        _number("grpo.temperature", self.temperature, 0.01, 100.0)
        _number("grpo.clip", self.clip, 0.0, 1.0)
        _number("grpo.kl", self.kl, 0.0, 100.0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All of it. Two equal recipes on equal data make equal runs."""

    objective: ObjectiveName = "pretrain"
    """What is learnt: pretrain all text, sft the answers, dpo preferences, grpo by checking answers."""
    model: ModelRecipe = field(default_factory=ModelRecipe)
    """What is trained."""
    data: DataRecipe = field(default_factory=DataRecipe)
    """What is learnt from."""
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    """How weights move."""
    run: RunRecipe = field(default_factory=RunRecipe)
    """How long, on what, and what is kept."""
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    """Adapters instead of all weights."""
    dpo: DpoRecipe = field(default_factory=DpoRecipe)
    """Of objective dpo."""
    grpo: GrpoRecipe = field(default_factory=GrpoRecipe)
    """Of objective grpo."""

    def __post_init__(self) -> None:
        _choice("objective", self.objective, ("pretrain", "sft", "dpo", "grpo"))

    @property
    def needs_reference(self) -> bool:
        """Whether the model as it was at first is computed too."""
        return self.objective == "dpo" or (self.objective == "grpo" and self.grpo.kl > 0)


SECTIONS: dict[str, type[Any]] = {
    "model": ModelRecipe,
    "data": DataRecipe,
    "optimizer": OptimizerRecipe,
    "run": RunRecipe,
    "lora": LoraRecipe,
    "dpo": DpoRecipe,
    "grpo": GrpoRecipe,
}
"""The tables of a recipe, in the order they are written."""


def _whole(key: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise OptionError(f"{key} must be a whole number from {low} to {high}, not {value!r}")


def _number(key: str, value: Any, low: float, high: float) -> None:
    if type(value) not in (int, float) or not low <= value <= high:  # which nan is not
        raise OptionError(f"{key} must be a number from {low:g} to {high:g}, not {value!r}")


def _choice(key: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        shown = ", ".join(choice for choice in choices if choice)
        raise OptionError(f"{key} must be one of {shown}, not {value!r}")
