"""herd verify: every planted fault is found and named, every clean copy passes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.gguf_header import read_header
from openherd.cli import main
from openherd.errors import EngineError, FormatError, InputError, UnsupportedError
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES
from openherd.tokenizers.spec import TokenType
from openherd.workshop.convert.run import convert
from openherd.workshop.golden.document import Golden, TensorFacts, read_golden
from openherd.workshop.golden.places import attach, golden_of
from openherd.workshop.golden.record import record
from openherd.workshop.verify.findings import Report
from openherd.workshop.verify.logprobs import tolerance
from openherd.workshop.verify.run import golden_for, rounding_of, types_of, verify
from openherd.workshop.verify.tensors import distance
from tests.checkpoint_files import Entry, GGUFFile, array, text, u32
from tests.unit.llm.tiny_llm import SPEC
from tests.unit.workshop.golden_models import (
    FAULTS,
    IN_EXPERTS,
    ON_QUANTISED,
    QUANTISED,
    golden_json,
    model,
    requantised,
    tensor,
    values,
    written,
)

Damage = Callable[[GGUFFile], None]


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> str:
    return golden_json(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def golden_q8(tmp_path_factory: pytest.TempPathFactory) -> str:
    return golden_json(tmp_path_factory.mktemp("golden"), "Q8_0")


@pytest.fixture(scope="session")
def golden_experts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return golden_json(tmp_path_factory.mktemp("golden"), experts=True)


def checked(path: Path) -> Report:
    return verify(path, golden_for(path, None))


def _of(name: str) -> Damage:
    return next(fault[1] for fault in FAULTS if fault[0] == name)


def found(report: Report, check: str) -> str:
    return "\n".join(line for f in report.findings if f.name == check and f.outcome == "differs" for line in f.lines)


@pytest.mark.parametrize(("name", "damage", "check", "says"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_planted_fault_is_found(
    name: str, damage: Damage, check: str, says: str, golden: str, tmp_path: Path
) -> None:
    file = model()
    damage(file)
    assert file.build() != model().build(), "the fault was not planted"
    report = checked(written(file, golden, tmp_path / "copy.gguf"))
    assert not report.passed
    assert says in found(report, check)


@pytest.mark.parametrize(("name", "damage", "check", "says"), ON_QUANTISED, ids=[f[0] for f in ON_QUANTISED])
def test_a_fault_in_quantised_blocks(
    name: str, damage: Damage, check: str, says: str, golden_q8: str, tmp_path: Path
) -> None:
    clean = model("Q8_0")
    assert checked(written(clean, golden_q8, tmp_path / "clean.gguf")).passed
    damage(clean)
    report = checked(written(clean, golden_q8, tmp_path / "copy.gguf"))
    assert not report.passed
    assert says in found(report, check)


@pytest.mark.parametrize(("name", "damage", "check", "says"), IN_EXPERTS, ids=[fault[0] for fault in IN_EXPERTS])
def test_a_fault_in_a_model_of_experts(
    name: str, damage: Damage, check: str, says: str, golden_experts: str, tmp_path: Path
) -> None:
    file = model(experts=True)
    assert checked(written(file, golden_experts, tmp_path / "clean.gguf")).passed
    damage(file)
    assert file.build() != model(experts=True).build(), "the fault was not planted"
    report = checked(written(file, golden_experts, tmp_path / "copy.gguf"))
    assert not report.passed
    assert says in found(report, check)


@pytest.mark.parametrize("type_name", ["F16", "Q8_0", "Q4_0"])
def test_swapped_experts_behind_another_quantisation(type_name: str, golden_experts: str, tmp_path: Path) -> None:
    clean = checked(written(requantised(model(experts=True), type_name), golden_experts, tmp_path / "clean.gguf"))
    assert clean.passed, clean.findings
    for name, damage, check, says in IN_EXPERTS:
        file = model(experts=True)
        damage(file)
        report = checked(written(requantised(file, type_name), golden_experts, tmp_path / "copy.gguf"))
        assert report.strength == "another quantisation"
        assert says in found(report, check), name


IN_WEIGHTS = [fault for fault in FAULTS if fault[2] == "tensors" and "norm" not in fault[3]]


def _by_way_of(type_name: str, file: GGUFFile, golden: str, path: Path) -> Path:
    """Float32 values again, which were quantised in between; as herd convert writes it."""
    values = _since(read_golden(golden.encode(), "golden"), type_name)
    return written(requantised(requantised(file, type_name), "F32"), values.to_json(), path)


def _since(golden: Golden, type_name: str, names: Iterable[str] = QUANTISED) -> Golden:
    """For a file whose tensors were quantised since, and are floats again."""
    return golden.rewritten(dict.fromkeys(names, (type_name, "F32")))


def _quantised(type_name: str, file: GGUFFile, golden: str, path: Path) -> Path:
    return written(requantised(file, type_name), golden, path)


BEHIND = [*((_quantised, name) for name in ("F16", "Q8_0", "Q4_0")), *((_by_way_of, name) for name in ("Q8_0", "Q4_0"))]


@pytest.mark.parametrize(("copy", "type_name"), BEHIND)
@pytest.mark.parametrize(("name", "damage", "check", "says"), IN_WEIGHTS, ids=[fault[0] for fault in IN_WEIGHTS])
def test_a_fault_is_found_behind_another_quantisation(
    name: str,
    damage: Damage,
    check: str,
    says: str,
    copy: Callable[[str, GGUFFile, str, Path], Path],
    type_name: str,
    golden: str,
    tmp_path: Path,
) -> None:
    """The golden values are those of float32, the copy is or was quantised, and its digests say nothing any more."""
    if name == "float type":
        pytest.skip("the type itself is the fault")
    file = model()
    damage(file)
    report = checked(copy(type_name, file, golden, tmp_path / "copy.gguf"))
    assert report.strength == "another quantisation"
    assert says in found(report, check)


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0"])
def test_floats_that_were_quantised_pass(type_name: str, golden: str, tmp_path: Path) -> None:
    path = _by_way_of(type_name, model(), golden, tmp_path / "copy.gguf")
    report = checked(path)
    assert report.passed, report.findings
    assert report.strength == "another quantisation"
    assert report.in_between == (type_name,)
    quietly = verify(path, read_golden(golden.encode(), "golden"))
    assert not quietly.passed, "nothing says that they were quantised"
    (tmp_path / "trusted.json").write_text(golden)
    assert not verify(path, golden_for(path, tmp_path / "trusted.json")).passed, (
        "its own account is not trusted as much"
    )


def test_what_another_file_went_through_says_nothing_of_this_one(golden: str, tmp_path: Path) -> None:
    """Golden values from elsewhere come with the history of the file that they lay in."""
    file = model()
    noisy = tensor(file, "blk.0.ffn_up.weight")
    x = values(noisy)
    noisy.data = (x * 1.05).astype("<f4").tobytes()
    path = written(file, golden, tmp_path / "noisy.gguf")
    said = _since(read_golden(golden.encode(), "golden"), "Q4_0")
    assert verify(path, said).passed, "so much is within what Q4_0 may do"
    (tmp_path / "said.json").write_text(said.to_json())
    assert not verify(path, golden_for(path, tmp_path / "said.json")).passed


def test_only_tensors_with_other_digests_count_as_rounded(golden: str, tmp_path: Path) -> None:
    file = model()
    (name,) = (name for name in QUANTISED if "layers.0.mlp.up" in name)
    moved = tensor(file, "blk.0.ffn_up.weight")
    moved.data = (values(moved) * 1.01).astype("<f4").tobytes()
    limits = []
    for names in ([name], QUANTISED):
        said = _since(read_golden(golden.encode(), "golden"), "Q4_0", names)
        report = checked(written(file, said.to_json(), tmp_path / "copy.gguf"))
        assert report.passed, report.findings
        limits.append(next(f.detail for f in report.findings if f.name == "log-probabilities"))
    assert limits[0] == limits[1]


def test_no_type_of_blocks_is_said_of_a_norm(golden: str) -> None:
    clean = read_golden(golden.encode(), "golden")
    norm = "model.norm.weight"
    assert clean.rewritten({norm: ("Q2_K", "F32")}) == clean
    assert clean.rewritten({norm: ("BF16", "F32")}).tensors[norm].rounded_to == "BF16"
    document = json.loads(golden)
    for type_name in ("Q2_K", "Q8_0"):
        document["tensors"][norm]["rounded_to"] = type_name
        with pytest.raises(FormatError, match="must be a type that values of this shape are rounded to"):
            read_golden(json.dumps(document).encode(), "golden")


def test_the_files_own_account_is_told(golden: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(_by_way_of("Q4_0", model(), golden, tmp_path / "copy.gguf"))
    assert main(["verify", path, "--offline"]) == 0
    assert "verified: another quantisation, Q4_0 in between by the file's own account" in capsys.readouterr().out
    assert main(["verify", path, "--offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["in_between"] == ["Q4_0"]


def test_a_type_in_between_is_no_excuse(golden: str, tmp_path: Path) -> None:
    """What a file says that its values went through allows what a file of that type would be allowed, and no more."""
    clean = read_golden(golden.encode(), "golden")
    said = _since(clean, "Q4_0")
    path = written(model(), said.to_json(), tmp_path / "copy.gguf")
    report = checked(path)
    assert report.strength == "same artifact", "the digests are the recorded ones"
    moved = tuple(replace(one, top=tuple((i, lp + 0.01) for i, lp in one.top)) for one in said.next_tokens)
    assert "log-probability of token" in found(verify(path, replace(said, next_tokens=moved)), "log-probabilities")

    file = model()
    _of("transposed")(file)
    report = checked(written(file, said.to_json(), tmp_path / "bad.gguf"))
    assert report.strength == "another quantisation", "never the same artifact"
    assert "F32 to Q4_0 to F32 moves its projections" in found(report, "tensors")
    file = model()
    _of("one byte of a norm")(file)
    report = checked(written(file, said.to_json(), tmp_path / "norm.gguf"))
    assert "model.norm.weight: the same type, F32, with other values" in found(report, "tensors")

    assert clean.rewritten(dict.fromkeys(QUANTISED, ("F32", "F32"))) == clean, "float32 rounds nothing"
    for nonsense in ("Q1_0", "F32", ""):
        document = json.loads(golden)
        document["tensors"]["model.norm.weight"]["rounded_to"] = nonsense
        with pytest.raises(FormatError, match="'rounded_to' must be a type"):
            read_golden(json.dumps(document).encode(), "golden")


def _realigned(file: GGUFFile) -> None:
    file.alignment = 4096
    file.keys["general.alignment"] = u32(4096)


def _as_version_2(file: GGUFFile) -> None:
    file.version = 2


CLEAN: dict[str, Damage] = {
    "as it is": lambda file: None,
    "aligned otherwise": _realigned,
    "version 2": _as_version_2,
    "keys in another order": lambda file: file.keys.update(dict(sorted({**file.keys}.items(), reverse=True))),
    "tensors in another order": lambda file: file.tensors.reverse(),
    "another name": lambda file: file.keys.update({"general.name": text("copy")}),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_copy_passes(name: str, golden: str, tmp_path: Path) -> None:
    file = model()
    CLEAN[name](file)
    report = checked(written(file, golden, tmp_path / "copy.gguf"))
    assert report.passed, report.findings
    assert report.strength == "same artifact"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("type_name", ["F16", "BF16", "Q8_0", "Q4_1", "Q4_0"])
def test_a_clean_quantised_copy_passes(type_name: str, seed: int, tmp_path: Path) -> None:
    golden = golden_json(tmp_path, seed=seed)
    report = checked(written(requantised(model(seed=seed), type_name), golden, tmp_path / "copy.gguf"))
    assert report.passed, report.findings
    assert report.strength == "another quantisation"


def _rounded_again(t: Entry, type_name: str = "Q8_0") -> None:
    """The same type by another quantiser: values as near, other bits."""
    x = values(t)
    noise = np.random.default_rng(0).normal(0, 1e-3 * float(np.sqrt(np.mean(x * x))), x.shape)
    t.data = quantize((x + noise).astype(np.float32), BLOCK_TYPES[type_name]).tobytes()


def test_fine_tensors_do_not_narrow_what_coarse_ones_may_move(golden: str, tmp_path: Path) -> None:
    """A fine embedding, as small models have it, leaves the layers as coarse as they are."""
    file = requantised(model(), "Q4_0")
    fine = tensor(file, "token_embd.weight")
    fine.data, fine.type_id = tensor(model(), fine.name).data, tensor(model(), fine.name).type_id
    checkpoint = open_checkpoint(written(file, golden, tmp_path / "mix.gguf"))
    coarse = open_checkpoint(written(requantised(model(), "Q4_0"), golden, tmp_path / "q.gguf"))
    all_coarse = rounding_of(coarse, types_of(coarse))
    assert all_coarse == pytest.approx(0.108)
    assert 0.7 * all_coarse < rounding_of(checkpoint, types_of(checkpoint)) < all_coarse
    assert rounding_of(checkpoint, types_of(coarse)) == all_coarse


@pytest.mark.parametrize(
    ("rounding", "moved"),  # by mixes of a trained model (SmolLM2-135M, dithered), each a clean copy
    [
        (0.0068, 0.065), (0.0113, 0.13), (0.0366, 0.29), (0.0478, 0.61), (0.0495, 0.53), (0.0545, 0.69), (0.0859, 0.9),
        (0.096, 0.94), (0.1145, 1.1),
    ],
)  # fmt: skip
def test_what_a_trained_model_moves_by_is_allowed(rounding: float, moved: float) -> None:
    assert 1.3 * moved < tolerance(rounding) < 4 * moved


def test_a_tensor_that_comes_back_to_its_type(golden_q8: str, tmp_path: Path) -> None:
    """Quantised anew by way of floats, to a mix that has one tensor as it was: that one's bits are others, too."""

    def copy() -> GGUFFile:
        file = model("Q8_0")
        kept = tensor(file, "blk.0.attn_q.weight")
        data, type_id = kept.data, kept.type_id
        requantised(file, "Q4_0")
        kept.data, kept.type_id = data, type_id
        return file

    file = copy()
    _rounded_again(tensor(file, "blk.0.attn_q.weight"))
    report = checked(written(file, golden_q8, tmp_path / "clean.gguf"))
    assert report.strength == "another quantisation"
    assert report.passed, report.findings

    file = copy()
    kept = tensor(file, "blk.0.attn_q.weight")
    rows = np.frombuffer(kept.data, np.uint8).reshape(kept.dims[1], -1)
    kept.data = np.roll(rows, 1, axis=0).tobytes()
    report = checked(written(file, golden_q8, tmp_path / "spoilt.gguf"))
    assert "model.layers.0.self_attn.q_proj.weight: Q8_0 to Q8_0 moves" in found(report, "tensors")


def test_an_account_of_one_tensor_says_nothing_of_others(tmp_path: Path) -> None:
    """A norm that was bfloat16 in between opens no matrix of blocks."""
    golden = golden_json(tmp_path, "Q4_0")
    norm, matrix = "model.norm.weight", "blk.0.attn_q.weight"
    said = read_golden(golden.encode(), "golden").rewritten({norm: ("BF16", "F32")}).to_json()
    file = model("Q4_0")
    moved = tensor(file, "output_norm.weight")
    moved.data = (values(moved) * np.float32(1.0001)).astype("<f4").tobytes()
    report = checked(written(file, said, tmp_path / "clean.gguf"))
    assert report.passed, report.findings
    detail = next(f.detail for f in report.findings if f.name == "log-probabilities")
    assert detail.endswith("mean at most 0.1"), "the norm alone explains nothing that matrices do"
    _rounded_again(tensor(file, matrix), "Q4_0")
    report = checked(written(file, said, tmp_path / "copy.gguf"))
    assert "self_attn.q_proj.weight: the same type, Q4_0, with other values" in found(report, "tensors")


def test_a_type_that_explains_everything(golden: str) -> None:
    """Of a vector, or not known."""
    document = json.loads(golden)
    for type_name in ("Q2_K", "", "WEIRD"):
        document["tensors"]["model.norm.weight"]["type"] = type_name
        with pytest.raises(FormatError, match="'type' must be one that a tensor of this shape can have"):
            read_golden(json.dumps(document).encode(), "golden")


@pytest.mark.parametrize("value", [10**400, json.loads("[" * 900 + "]" * 900)], ids=["huge", "deep"])
def test_facts_that_cannot_be_compared(value: object, golden: str) -> None:
    for place in ("config", "vocabulary"):
        document = json.loads(golden)
        facts = document["config"] if place == "config" else document["vocabulary"]["facts"]
        facts["norm_eps"] = value
        with pytest.raises(FormatError, match="must have at most 16 levels, and numbers to 1e"):
            read_golden(json.dumps(document).encode(), "golden")


def test_all_types_as_recorded_means_all_bits(golden_q8: str, tmp_path: Path) -> None:
    file = model("Q8_0")
    _rounded_again(tensor(file, "blk.0.attn_q.weight"))
    report = checked(written(file, golden_q8, tmp_path / "copy.gguf"))
    assert "the same type, Q8_0, with other values" in found(report, "tensors")


def test_what_cannot_be_checked_does_not_pass(golden: str, tmp_path: Path) -> None:
    values = read_golden(golden.encode(), "golden")
    path = written(model(), golden, tmp_path / "copy.gguf")
    report = verify(path, replace(values, next_tokens=(), vocabulary=replace(values.vocabulary, texts=())))
    assert not report.passed
    unchecked = [f.name for f in report.findings if f.outcome == "unchecked"]
    assert unchecked == ["token ids", "log-probabilities"]


def test_golden_values_that_are_not_there(golden: str, tmp_path: Path) -> None:
    path = written(model(), golden, tmp_path / "copy.gguf")
    with pytest.raises(InputError, match=r"there is no file .*nope\.json"):
        golden_for(path, tmp_path / "nope.json")


def test_a_size_alone_says_nothing_of_a_tensor() -> None:
    now = TensorFacts("F32", (32, 32), "", 1.0, (0.5,) * 32)
    assert distance(now, now) == 0
    assert distance(replace(now, sketch=()), now) == math.inf
    assert distance(replace(now, sketch=(0.5,) * 31), now) == math.inf


NORMALIZED = "openherd.tokenizer.normalized"


def _with_an_added_token(**keys: tuple[int, bytes]) -> GGUFFile:
    """Its last token is one that text may spell."""
    file = model()
    kinds = [*SPEC.token_types[:-1], TokenType.USER_DEFINED]
    file.keys |= {
        "tokenizer.ggml.token_type": array(5, np.array(kinds, "<i4")),
        "openherd.tokenizer.normalizer": text("NFC"),
        **keys,
    }
    return file


def test_where_added_tokens_are_sought(tmp_path: Path) -> None:
    """Normal text or text as it is written: a flag of tokenizer.json, which changes ids of few texts."""
    last = len(SPEC.tokens) - 1
    marked = array(4, np.array([last], "<u4"))
    (tmp_path / "x.gguf").write_bytes(_with_an_added_token(**{NORMALIZED: marked}).build())
    golden = record(tmp_path / "x.gguf")
    assert checked(written(_with_an_added_token(**{NORMALIZED: marked}), golden.to_json(), tmp_path / "y.gguf")).passed
    swapped = written(_with_an_added_token(), golden.to_json(), tmp_path / "swapped.gguf")
    assert f"normalized: was [{last}], is []" in found(checked(swapped), "tokenizer")

    facts = {name: value for name, value in golden.vocabulary.facts.items() if name != "normalized"}
    older = replace(golden, vocabulary=replace(golden.vocabulary, facts=facts))
    assert verify(tmp_path / "x.gguf", older).passed, "older golden values do not say it"
    none = replace(older, vocabulary=replace(older.vocabulary, facts={n: v for n, v in facts.items() if n != "kind"}))
    assert "kind: was None" in found(verify(tmp_path / "x.gguf", none), "tokenizer")


def test_record_keeps_everything_else_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    file = model("Q8_0")
    _realigned(file)
    path.write_bytes(file.build())
    before = read_header(path)
    attach(record(path), path)
    after = read_header(path)
    assert list(after.keys) == [*before.keys, "openherd.golden"]
    for name, info in before.tensors.items():
        assert after.tensors[name].rows(after.data).tobytes() == info.rows(before.data).tobytes()
    assert checked(path).passed
    first = path.read_bytes()
    attach(record(path), path)  # again: the same values, the same bytes
    assert path.read_bytes() == first


def _spoilt(type_name: str) -> GGUFFile:
    """One value, or one block's scale, is NaN."""
    file = model(type_name)
    t = tensor(file, "blk.1.ffn_up.weight")
    t.data = {"F32": b"\0\0\xc0\x7f", "Q8_0": b"\0\x7e"}[type_name] + t.data[4 if type_name == "F32" else 2 :]
    return file


@pytest.mark.parametrize("type_name", ["F32", "Q8_0"])
def test_weights_that_are_not_finite_are_named(type_name: str, golden: str, golden_q8: str, tmp_path: Path) -> None:
    says = r"model\.layers\.1\.mlp\.up_proj\.weight holds weights that are not finite numbers"
    path = tmp_path / "x.gguf"
    path.write_bytes(_spoilt(type_name).build())
    with pytest.raises(FormatError, match=says):
        record(path)
    with pytest.raises(FormatError, match=says):
        convert(path, tmp_path / "out", "safetensors", dtype="f32")
    report = verify(path, read_golden((golden if type_name == "F32" else golden_q8).encode(), "golden"))
    [unchecked] = [f for f in report.findings if f.outcome == "unchecked"]
    assert re.search(says, unchecked.lines[0])


def test_weights_whose_sums_are_not_finite(tmp_path: Path) -> None:
    file = model()
    for name in ("blk.1.ffn_up.weight", "blk.1.ffn_down.weight"):
        t = tensor(file, name)
        t.data = np.full(t.dims[::-1], 3e38, "<f4").tobytes()
    path = tmp_path / "x.gguf"
    path.write_bytes(file.build())
    with pytest.raises(EngineError, match=r"logits are not finite numbers; all weights are"):
        record(path)


def test_record_keeps_permissions_and_links(golden: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = tmp_path / "real" / "x.gguf"
    path.write_bytes(model().build())
    path.chmod(0o600)
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    assert attach(read_golden(golden.encode(), "golden"), link) == link
    assert link.is_symlink()
    assert golden_of(path) is not None
    assert path.stat().st_mode & 0o777 == 0o600
    folder = tmp_path / "hf"
    folder.mkdir()
    (tmp_path / "real" / "values").touch(0o640)
    (folder / "golden.json").symlink_to(tmp_path / "real" / "values")
    attach(read_golden(golden.encode(), "golden"), folder)
    assert (tmp_path / "real" / "values").read_text() == golden + "\n"
    assert (tmp_path / "real" / "values").stat().st_mode & 0o777 == 0o640


def test_values_survive_their_json(golden: str) -> None:
    assert read_golden(golden.encode(), "x").to_json() == golden


def with_template(path: Path, template: str) -> Path:
    file = model()
    file.keys["tokenizer.chat_template"] = text(template)
    path.write_bytes(file.build())
    return path


def test_long_templates_and_chats(tmp_path: Path) -> None:
    """A template as long as files may have it does not compile, and is compared as text."""
    long_chat = with_template(tmp_path / "chat.gguf", "{{ 'x' * 200000 }}")
    attach(record(long_chat), long_chat)
    assert checked(long_chat).passed
    long_template = with_template(tmp_path / "template.gguf", "{#" + "x" * ((1 << 20) - 4) + "#}")
    attach(record(long_template), long_template)
    findings = {finding.name: finding.outcome for finding in checked(long_template).findings}
    assert findings.pop("rendered chats") == "unchecked"
    assert set(findings.values()) == {"right"}


def test_values_that_could_not_be_read_again_are_not_recorded(tmp_path: Path) -> None:
    path = with_template(tmp_path / "x.gguf", "{#" + "x" * (1 << 20) + "#}")
    with pytest.raises(UnsupportedError, match="golden values: 'template'"):
        record(path)


def test_a_file_of_golden_values_beside_the_model(golden: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(model().build())
    with pytest.raises(InputError, match="carries no golden values"):
        golden_for(path, None)
    (tmp_path / "g.json").write_text(golden)
    assert golden_of(tmp_path / "g.json") is not None
    assert verify(path, golden_for(path, tmp_path / "g.json")).passed


@pytest.mark.parametrize("change", [
    lambda d: d.pop("config"), lambda d: d.update(openherd_golden=2), lambda d: d.update(more=1),
    lambda d: d.update(tensors=[]), lambda d: d.update(template=7), lambda d: d["next_tokens"][0].update(top=[]),
    lambda d: d["next_tokens"][0].update(ids=[-1]), lambda d: d["next_tokens"][0].update(top=[[1, "x"]]),
    lambda d: d["tensors"]["model.norm.weight"].update(rms=-1.0),
    lambda d: d.update(chats=[{"messages": [{"role": 1}], "text": None}]), lambda d: d.update(rotation=[1e999]),
])  # fmt: skip
def test_golden_values_that_are_not(change: Callable[[dict], object], golden: str) -> None:
    document = json.loads(golden)
    change(document)
    with pytest.raises(FormatError, match=r"^golden"):
        read_golden(json.dumps(document).encode(), "golden")


def test_the_verb(golden: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = written(model(), golden, tmp_path / "good.gguf")
    assert main(["verify", str(good)]) == 0
    assert capsys.readouterr().out.endswith("verified: same artifact\n")
    file = model()
    FAULTS[0][1](file)
    bad = written(file, golden, tmp_path / "bad.gguf")
    assert main(["verify", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS      chat template" in out
    assert "not verified: 2 of 7 checks differ, 0 could not be made" in out
    assert main(["verify", str(bad), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    assert {check["name"]: check["outcome"] for check in document["checks"]}["tensors"] == "right"


def test_the_verb_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(model().build())
    assert main(["verify", str(path)]) == 2
    assert "--record" in capsys.readouterr().err
    assert main(["verify", str(path), "--record"]) == 0
    assert main(["verify", str(path)]) == 0
    assert main(["verify", str(path), "--record", "--golden", str(tmp_path / "g.json"), "--json"]) == 0
    capsys.readouterr()
    assert main(["verify", str(path), "--golden", str(tmp_path / "g.json")]) == 0
    assert main(["verify", str(path), "--record", "--against", "http://127.0.0.1:1"]) == 2
