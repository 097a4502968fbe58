"""T14: what `herd train export` writes computes what was trained, in the engine; and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from openherd.checkpoints import open_checkpoint
from openherd.cli import main
from openherd.errors import HerdError
from openherd.tokenizers import Tokenizer
from openherd.train.export import check_export
from openherd.train.model.decoder import Decoder
from openherd.train.model.loading import float_values, named_tensors
from openherd.train.trained_model import TrainedModel, open_trained
from openherd.workshop.golden.places import golden_of
from tests.small_disk import small_disk
from tests.train.export import small_runs


class Exported:
    """What the command printed, and how it ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.err = status, err
        self.document: dict[str, Any] = json.loads(out) if out.strip() else {}


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> Exported:
        status = main(["train", "export", *map(str, arguments), "--threads", "1", "--json"])
        return Exported(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def base_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Decoder]]:
    run = tmp_path_factory.mktemp("full") / "run"
    return run, small_runs.full_run(run)


def written_tensors(out: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(out)
    return {name: float_values(checkpoint.tensors[name]) for name in checkpoint.tensors}


def test_a_model_of_a_short_context_is_compared_within_it(tmp_path: Path, export: Any) -> None:
    small_runs.full_run(tmp_path / "run", max_seq_len=16)
    done = export(tmp_path / "run", tmp_path / "m.gguf")
    assert done.status == 0, done.err
    assert main(["verify", str(tmp_path / "m.gguf"), "--threads", "1"]) == 0


def test_a_full_disk_is_named_and_nothing_is_left(base_run: Any, tmp_path: Path, export: Any) -> None:
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", "64k") as disk:
        for out in ("m.gguf", "folder"):
            done = export(base_run[0], disk / out)
            assert done.status == 1
            assert "the disk is full" in done.document["error"]["message"]
            assert list(disk.iterdir()) == []


@pytest.mark.parametrize(("name", "type_", "dtype"), [
    ("folder", "f32", torch.float32), ("folder", "bf16", torch.bfloat16), ("m.gguf", "f32", torch.float32),
    ("m.gguf", "f16", torch.float16),
])  # fmt: skip
def test_t14_a_model_is_written_as_it_was_trained(
    name: str, type_: str, dtype: torch.dtype, base_run: tuple[Path, dict[int, Decoder]], tmp_path: Path, export: Any
) -> None:
    run, models = base_run
    done = export(run, tmp_path / name, "--type", type_)
    assert done.status == 0, done.document
    assert done.document["step"] == 8
    assert done.document["largest_logit_difference"] <= 1e-4
    assert done.document["compared_positions"] > 100
    facts, written = small_runs.facts(), open_checkpoint(tmp_path / name)
    assert written.chat_template == facts.chat_template
    assert written.license == small_runs.LICENSE
    assert golden_of(tmp_path / name) is not None
    ours, theirs = Tokenizer(facts.tokenizer), Tokenizer(written.tokenizer)
    text = Path(__file__).read_text()
    assert ours.encode(text, special=True) == theirs.encode(text, special=True)
    found = written_tensors(tmp_path / name)
    for key, values in named_tensors(models[8]):
        # GGUF keeps vectors in float32.
        kept = values if name.endswith(".gguf") and values.ndim == 1 else values.to(dtype).float()
        assert torch.equal(found[key], kept), key
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing else is left beside it"


def test_a_checkpoint_is_chosen(base_run: tuple[Path, dict[int, Decoder]], tmp_path: Path, export: Any) -> None:
    run, models = base_run
    for which, step in (("best", 4), ("4", 4), ("latest", 8)):
        done = export(run, tmp_path / which, "--type", "f32", "--checkpoint", which)
        assert done.document["step"] == step
        found = written_tensors(tmp_path / which)["model.layers.0.mlp.up_proj.weight"]
        assert torch.equal(found, models[step].state_dict()["model.layers.0.mlp.up_proj.weight"])


def test_fewer_bits_are_written_and_their_cost_is_said(
    base_run: tuple[Path, dict[int, Decoder]], tmp_path: Path, export: Any
) -> None:
    done = export(base_run[0], tmp_path / "m.gguf", "--type", "q8_0")
    assert done.status == 0, done.document
    assert 0 < done.document["mean_kl"] < 0.05
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    assert checkpoint.tensors["model.layers.0.mlp.up_proj.weight"].type.name == "Q8_0"
    assert golden_of(tmp_path / "m.gguf") is not None


@pytest.fixture(scope="module")
def base(base_run: tuple[Path, dict[int, Decoder]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a licence's text, made by an export of its own."""
    out = tmp_path_factory.mktemp("base") / "base"
    trained = open_trained(base_run[0], "latest", open_checkpoint)
    from openherd.workshop.convert import to_safetensors

    to_safetensors.write(
        trained.checkpoint, out, dtype="f32", max_shard_bytes=None, golden=None, resume_key="", on_progress=None
    )
    (out / "LICENSE").write_text("Apache License, Version 2.0\n")
    return out


@pytest.mark.parametrize("base_type", ["", "q8_0"])
def test_adapters_are_merged(base_type: str, base: Path, tmp_path: Path, export: Any) -> None:
    model = small_runs.lora_run(tmp_path / "run", base, base_type=base_type)
    done = export(tmp_path / "run", tmp_path / "out", "--type", "f32")
    assert done.status == 0, done.document
    assert done.document["largest_logit_difference"] <= 1e-4
    found = written_tensors(tmp_path / "out")
    for name, values in named_tensors(model):
        torch.testing.assert_close(found[name], values, atol=1e-6, rtol=0, msg=name)
    changed = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(found[changed], written_tensors(base)[changed], atol=1e-3), (
        "the adapter is in the weights"
    )
    assert (tmp_path / "out" / "LICENSE").read_text() == "Apache License, Version 2.0\n"


def test_adapters_alone_are_what_the_engine_adds(base: Path, tmp_path: Path, export: Any) -> None:
    from openherd.llm import LLM
    from openherd.options import EngineOptions

    model = small_runs.lora_run(tmp_path / "run", base)
    done = export(tmp_path / "run", tmp_path / "adapter", "--adapter-only")
    assert done.status == 0, done.document
    text = "def config(vocab_size: int) -> ModelConfig:"
    options = EngineOptions(context=64, kv_dtype="f32", threads=1)
    with LLM.load(base, options=options, adapters={"a": tmp_path / "adapter"}, offline=True) as llm:
        adapted, plain = (llm.score(text, context=64, adapter=name) for name in ("a", None))
    trained = TrainedModel(tmp_path / "run", 3, small_runs.facts(), model)
    ids = list(adapted.token_ids)
    logits = torch.from_numpy(np.concatenate(list(trained.logits(ids)))).log_softmax(dim=-1)
    expected = logits[:-1].gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
    np.testing.assert_allclose(np.asarray(adapted.logprobs), expected.numpy(), atol=1e-4)
    assert np.abs(np.asarray(plain.logprobs) - expected.numpy()).max() > 0.05


@pytest.mark.parametrize("name", ["../LICENSE", "/tmp/license", "config.json", "license\\x", "license\n", ""])
def test_a_strangers_run_writes_no_files_of_other_names(
    name: str, base_run: tuple[Path, dict[int, Decoder]], tmp_path: Path, export: Any
) -> None:
    shutil.copytree(base_run[0], tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "model.json").read_text())
    (tmp_path / "run" / "model.json").write_text(json.dumps(facts | {"papers": {name: "mine"}}))
    done = export(tmp_path / "run", tmp_path / "out")
    assert done.status == 2
    assert "is no name of a licence text" in done.document["error"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_model_written_wrongly_is_not_kept(
    base_run: tuple[Path, dict[int, Decoder]], tmp_path: Path, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classic fault: rows of queries and keys left in the order of another layout."""
    from openherd.checkpoints import planned_tensors

    monkeypatch.setattr(planned_tensors, "is_rotary", lambda name: False)
    done = export(base_run[0], tmp_path / "m.gguf", "--type", "f32")
    assert done.status == 1
    assert "is not written as it was trained" in done.document["error"]["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("off", [3e-4, 1.0])
def test_logits_of_an_engine_that_computes_otherwise_are_refused(
    off: float, base_run: tuple[Path, dict[int, Decoder]], base: Path
) -> None:
    trained = open_trained(base_run[0], "latest", open_checkpoint)

    def wrong(ids: list[int]) -> Iterator[Any]:
        for block in trained.logits(ids):
            block[0, 0] += off
            yield block

    ids = [list(range(10))]
    assert check_export(trained, open_checkpoint(base), trained.logits, ids).largest_difference == 0
    with pytest.raises(HerdError, match="computes something else"):
        check_export(trained, open_checkpoint(base), wrong, ids)


def test_refusals(base_run: tuple[Path, dict[int, Decoder]], base: Path, tmp_path: Path, export: Any) -> None:
    run, _ = base_run
    (tmp_path / "taken").write_text("mine")
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, said in (
        ((run, tmp_path / "taken"), "exists already"),
        ((run, tmp_path / "no" / "place"), "is no folder"),
        ((empty, tmp_path / "o"), "holds no training run"),
        ((run, tmp_path / "o", "--checkpoint", "5"), "step 5 is not kept"),
        ((run, tmp_path / "o", "--checkpoint", "newest"), "--checkpoint is latest, best or the number of a step"),
        ((run, tmp_path / "o", "--type", "q8_0"), "--type must be f32, f16 or bf16"),
        ((run, tmp_path / "o.gguf", "--type", "q9"), "q9"),
        ((run, tmp_path / "o", "--adapter-only"), "has no adapter"),
        ((run, tmp_path / "o.gguf", "--adapter-only"), "o.gguf is the name of a file, and an adapter is a folder"),
        ((run, tmp_path / "o.safetensors", "--adapter-only"), "is the name of a file, and an adapter is a folder"),
        ((run, tmp_path / "o", "--adapter-only", "--to", "gguf"), "--to gguf is for whole models"),
    ):
        done = export(*arguments)
        assert done.status == 2, arguments
        assert said in done.document["error"]["message"]
    assert (tmp_path / "taken").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "empty"}


def test_a_run_without_checkpoints_and_a_spoilt_one(
    base_run: tuple[Path, dict[int, Decoder]], tmp_path: Path, export: Any
) -> None:
    bare, spoilt = tmp_path / "bare", tmp_path / "spoilt"
    for copy in (bare, spoilt):
        shutil.copytree(base_run[0], copy)
    shutil.rmtree(bare / "checkpoints")
    file = next((spoilt / "checkpoints" / "step-00000008" / "model").iterdir())
    data = bytearray(file.read_bytes())
    data[-1000] ^= 1
    file.write_bytes(bytes(data))
    assert "holds no checkpoint" in export(bare, tmp_path / "o").document["error"]["message"]
    assert "is not as it was saved" in export(spoilt, tmp_path / "o").document["error"]["message"]
    assert export(spoilt, tmp_path / "o", "--checkpoint", "4").status == 0, "the one before it is sound"


def test_adapters_of_another_base_are_refused(base: Path, tmp_path: Path, export: Any) -> None:
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    small_runs.lora_run(tmp_path / "run", copy)
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    at = len(data) - 40
    data[at] ^= 255
    file.write_bytes(bytes(data))
    done = export(tmp_path / "run", tmp_path / "out")
    assert done.status == 2
    assert "is not the model that the adapters were trained on" in done.document["error"]["message"]
