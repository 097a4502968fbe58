"""From files to an LLM: references, templates, adapters, and what is said when one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd import LLM, Message, SamplingParams
from openherd.errors import FormatError, HerdError, InputError, ModelNotFoundError, TemplateError
from openherd.messages import Completion
from openherd.options import EngineOptions
from tests.unit.llm.tiny_file import CONTEXT, write_adapter, write_model

ORACLE = EngineOptions(backend="reference", kv_memory=16 << 20)
GREEDY = SamplingParams(temperature=0, max_tokens=12, logprobs=0, ignore_eos=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.gguf")


def answers(llm: LLM, adapter: str | None) -> list[Completion]:
    return llm.generate(["hello", "hello world"], GREEDY, adapter=adapter)


def test_loaded_from_a_file(model: Path) -> None:
    with LLM.load(model, options=ORACLE) as llm:
        assert (llm.name, llm.path, llm.context) == (str(model), model, CONTEXT)
        assert llm.load_s > 0
        assert llm.numerics_id.startswith("reference/")
        assert llm.chat([Message("user", "hello")], GREEDY).usage.completion_tokens == 12


def test_adapters_are_chosen_by_request(model: Path, tmp_path: Path) -> None:
    folders = {name: write_adapter(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two"))}
    with LLM.load(model, options=ORACLE) as plain:
        expected = [completion.logprobs for completion in answers(plain, None)]
    with LLM.load(model, options=ORACLE, adapters=folders) as llm:
        assert llm.adapters == ("one", "two")
        results = {name: [c.logprobs for c in answers(llm, name)] for name in (None, "one", "two")}
        assert results[None] == expected
        assert results["one"] != expected
        assert results["two"] not in (expected, results["one"])
        # Side by side in one batch, each keeps its own.
        streams = {name: llm.stream("hello", GREEDY, adapter=name) for name in results}
        for stream in streams.values():
            next(stream)
        for name, stream in streams.items():
            assert len(list(stream)) > 0
            assert stream.completion.logprobs == results[name][0]
        with pytest.raises(InputError, match="no adapter is called 'three'; loaded: one, two"):
            answers(llm, "three")


def test_template_by_name_and_by_file(model: Path, tmp_path: Path) -> None:
    own_file = tmp_path / "mine.jinja"
    own_file.write_text("{{ messages[0]['content'] }}!")
    messages = [Message("user", "hello")]
    counts = {}
    for template in (None, "chatml", str(own_file)):
        with LLM.load(model, options=ORACLE, template=template) as llm:
            counts[template] = llm.count_tokens(messages)
    assert counts[str(own_file)] == 2
    assert len(set(counts.values())) == 3


def test_template_that_is_wrong(model: Path, tmp_path: Path) -> None:
    binary, broken = tmp_path / "binary.jinja", tmp_path / "broken.jinja"
    binary.write_bytes(b"\xff\xfe")
    broken.write_text("{% for %}")
    for template, words in (("chatmL", "cannot read"), (str(binary), "not UTF-8"), (str(tmp_path), "cannot read")):
        with pytest.raises(TemplateError, match=words) as raised:
            LLM.load(model, options=ORACLE, template=template)
        assert "chatml" in str(raised.value)
    with LLM.load(model, options=ORACLE, template=str(broken)) as llm, pytest.raises(TemplateError, match="compile"):
        llm.chat([Message("user", "hello")])


def test_model_without_template_says_how_to_name_one(tmp_path: Path) -> None:
    with LLM.load(write_model(tmp_path / "bare.gguf", template=None), options=ORACLE) as llm:
        with pytest.raises(TemplateError, match="--template"):
            llm.chat([Message("user", "hello")])
        assert llm.generate("hello", GREEDY)[0].text


def test_what_cannot_be_loaded(model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:-1000])
    words = tmp_path / "words.gguf"
    words.write_text("not a model at all, only words")
    for path, error in (
        (tmp_path / "missing.gguf", ModelNotFoundError),
        (cut, FormatError),
        (words, FormatError),
        (tmp_path, HerdError),
    ):
        with pytest.raises(error):
            LLM.load(path, options=ORACLE)
    with pytest.raises(HerdError):
        LLM.load(model, options=ORACLE, adapters={"x": tmp_path / "none"})
