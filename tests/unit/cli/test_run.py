"""herd run: text to standard output, statistics to standard error, and one clear error for whatever is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Herd
from tests.unit.llm.tiny_file import write_adapter

KEYS = {
    "text", "token_ids", "prompt_tokens", "completion_tokens", "finish_reason", "seed", "numerics_id", "timing",
    "speculation",
}  # fmt: skip
TIMING_KEYS = {"load_s", "ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s"}
SMALL = ("--backend", "reference", "--kv-memory", str(16 << 20))
GREEDY = (*SMALL, "--temperature", "0", "--max-tokens", "10")


def test_text_and_statistics(herd: Herd, tiny_model: Path) -> None:
    result = herd("run", tiny_model, "-p", "hello", *GREEDY)
    document = json.loads(herd("run", tiny_model, "-p", "hello", *GREEDY, "--json").out)
    assert result.status == 0
    assert result.out == document["text"] + "\n" * (not document["text"].endswith("\n"))
    assert len(result.err.splitlines()) == 1
    for part in ("1 + 10 tokens", "tok/s", "finish length", "seed"):
        assert part in result.err


@pytest.mark.parametrize("verb", ["run", "chat", "score"])
def test_more_threads_than_cores_are_warned_of(
    herd: Herd, tiny_model: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openherd.kernels.cores.usable_cores", lambda: 2)
    arguments = {"run": ["-p", "hello", "--max-tokens", "2"], "chat": ["--max-tokens", "2"], "score": ["-"]}[verb]
    for threads, warned in ((2, False), (3, True)):
        result = herd(verb, tiny_model, *arguments, "--context", "64", "--threads", threads, stdin=b"hello world\n")
        assert result.status == 0, result.err
        said = "herd: warning: 3 threads on 2 usable cores are slow; try: --threads 2\n"
        assert (said in result.err) == warned


def test_json_document(herd: Herd, tiny_model: Path) -> None:
    result = herd("run", tiny_model, "-p", "hello", *GREEDY, "--json")
    document = json.loads(result.out)
    assert result.err == ""
    assert result.out.count("\n") == 1
    assert document.keys() == KEYS
    assert document["timing"].keys() == TIMING_KEYS
    assert (document["prompt_tokens"], document["completion_tokens"]) == (1, len(document["token_ids"]))
    assert document["finish_reason"] == "length"
    assert document["numerics_id"].startswith("reference/")


def test_speculation_is_reported_and_changes_nothing(herd: Herd, tiny_model: Path) -> None:
    asked = ("run", tiny_model, "-p", "hello hello hello hello", *SMALL, "--temperature", "0", "--max-tokens", "60")
    plain = json.loads(herd(*asked, "--no-speculate", "--logprobs", "1", "--json").out)
    assert plain["speculation"] == {"drafted": 0, "accepted": 0}
    assert "drafts" not in herd(*asked, "--no-speculate").err
    fast = json.loads(herd(*asked, "--logprobs", "1", "--json").out)
    for key in ("text", "token_ids", "logprobs", "finish_reason"):
        assert fast[key] == plain[key]
    assert 0 <= fast["speculation"]["accepted"] <= fast["speculation"]["drafted"]


def test_one_token_has_no_decode_rate(herd: Herd, tiny_model: Path) -> None:
    out = herd("run", tiny_model, "-p", "hello", *SMALL, "--max-tokens", "1", "--json").out
    assert json.loads(out)["timing"]["decode_tokens_per_s"] is None


def test_seed_repeats_the_answer(herd: Herd, tiny_model: Path) -> None:
    sampled = ("run", tiny_model, "-p", "hello", *SMALL, "--max-tokens", "10", "--temperature", "1", "--json")
    first = json.loads(herd(*sampled).out)
    again = json.loads(herd(*sampled, "--seed", first["seed"]).out)
    assert (again["text"], again["token_ids"], again["seed"]) == (first["text"], first["token_ids"], first["seed"])


def test_several_choices(herd: Herd, tiny_model: Path) -> None:
    sampled = ("run", tiny_model, "-p", "hello", *SMALL, "--max-tokens", "16", "--temperature", "1", "--n", "3")
    sampled += ("--seed", "3")  # of three short answers two are equal now and then
    documents = [json.loads(line) for line in herd(*sampled, "--json").out.splitlines()]
    assert len({tuple(document["token_ids"]) for document in documents}) == 3
    assert {document["seed"] for document in documents} == {documents[0]["seed"]}
    assert "--- 3 of 3 ---" in herd(*sampled).out


def test_logprobs(herd: Herd, tiny_model: Path) -> None:
    document = json.loads(herd("run", tiny_model, "-p", "hello", *GREEDY, "--logprobs", "2", "--json").out)
    assert [entry["token_id"] for entry in document["logprobs"]] == document["token_ids"]
    assert all(entry["top"][0] == [entry["token_id"], entry["logprob"]] for entry in document["logprobs"])


def test_prompt_from_standard_input(herd: Herd, tiny_model: Path) -> None:
    given = herd("run", tiny_model, "-p", "hello w\u00f6rld", *GREEDY).out
    assert herd("run", tiny_model, "-p", "-", *GREEDY, stdin="hello w\u00f6rld\n".encode()).out == given


def test_stop_string(herd: Herd, tiny_model: Path) -> None:
    full = json.loads(herd("run", tiny_model, "-p", "hello", *GREEDY, "--json").out)["text"]
    stop = full[2:4]
    cut = json.loads(herd("run", tiny_model, "-p", "hello", *GREEDY, "--stop", stop, "--json").out)
    assert (cut["text"], cut["finish_reason"]) == (full[: full.find(stop)], "stop")


def test_chat_uses_the_template(herd: Herd, tiny_model: Path) -> None:
    plain, chat, system, chatml = (
        json.loads(herd("run", tiny_model, "-p", "hello", *GREEDY, "--json", *more).out)["prompt_tokens"]
        for more in ((), ("--chat",), ("--chat", "--system", "be kind"), ("--chat", "--template", "chatml"))
    )
    assert plain < chat < system
    assert chatml not in (plain, chat, system)


@pytest.mark.parametrize("inline", [True, False])
def test_schema(herd: Herd, tiny_model: Path, tmp_path: Path, inline: bool) -> None:
    schema = json.dumps({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]})
    (tmp_path / "schema.json").write_text(schema)
    given = schema if inline else tmp_path / "schema.json"
    result = herd("run", tiny_model, "-p", "hello", *SMALL, "--schema", given, "--max-tokens", "200", "--seed", "1")
    assert result.status == 0
    assert json.loads(result.out).keys() >= {"ok"}


def test_adapter(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "tuned", seed=3)
    answers = {
        given: json.loads(
            herd("run", tiny_model, "-p", "hello world", *GREEDY, "--logprobs", "0", "--json", *given).out
        )["logprobs"]
        for given in ((), ("--adapter", f"mine={folder}"), ("--adapter", str(folder)))
    }
    plain, named, bare = answers.values()
    assert named == bare != plain


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "hello", "--temperature", "nan"], "temperature must be a number in [0, 100]"),
        (["-p", "hello", "--temperature", "hot"], "temperature"),
        (["-p", "hello", "--temprature", "1"], "--temperature"),
        (["-p", "hello", "--top-p", "0"], "--top-p must be"),
        (["-p", "hello", "--stop", ""], "stop must be strings"),
        (["-p", "x" * 600], "600 tokens"),
        (["-p", "x" * 600_000], "--context"),
        (["-p", "hello", "--system", "be kind"], "--chat"),
        (["-p", "hello", "--template", "chatml"], "--chat"),
        (["-p", "hello", "--special", "--chat"], "--special"),
        (["-p", "hello", "--logprobs", "1"], "--json"),
        (["-p", "hello", "--chat", "--template", "nowhere.jinja"], "cannot read the chat template"),
        (["-p", "hello", "--schema", "{"], "not JSON"),
        (["-p", "hello", "--schema", "nowhere.json"], "cannot read the schema"),
        (["-p", "hello", "--schema", '{"not": {}}'], "'not'"),
        (["-p", "hello", "--schema", "[1]"], "cannot read the schema"),
        (["-p", "hello", "--adapter", "=x"], "NAME=PATH"),
        (["-p", "hello", "--adapter", "nowhere"], "nowhere"),
        (["-p", "hello", "--logit-bias", "999999=1"], "vocabulary"),
        ([], "herd run needs a prompt"),
    ],
)
def test_wrong_input_is_one_clear_error(herd: Herd, tiny_model: Path, arguments: list[str], words: str) -> None:
    result = herd("run", tiny_model, *arguments, *SMALL)
    assert result.status == 2
    assert result.out == ""
    assert words in result.err
    assert len(result.err.splitlines()) <= 2, result.err
    assert "Traceback" not in result.err


def test_prompt_that_is_not_text(herd: Herd, tiny_model: Path) -> None:
    result = herd("run", tiny_model, "-p", "-", *SMALL, stdin=b"caf\xe9")
    assert result.status == 2
    assert "not UTF-8 text (byte 3)" in result.err


def test_model_that_is_missing_or_not_a_model(herd: Herd, tmp_path: Path) -> None:
    words = tmp_path / "words.gguf"
    words.write_text("only words")
    for model in (tmp_path / "missing.gguf", words):
        result = herd("run", model, "-p", "hello", *SMALL)
        assert result.status == 2
        assert str(model) in result.err
        assert len(result.err.splitlines()) <= 2


def test_error_as_json(herd: Herd, tiny_model: Path) -> None:
    result = herd("run", tiny_model, "-p", "hello", "--temperature", "nan", *SMALL, "--json")
    assert result.status == 2
    assert json.loads(result.out)["error"]["type"] == "OptionError"


def spawn(tiny_model: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "openherd", "run", str(tiny_model), "-p", "hello", *SMALL, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_text_streams_and_interrupt_ends_cleanly(tiny_model: Path) -> None:
    process = spawn(tiny_model, "--max-tokens", "500", "--ignore-eos", "--temperature", "1")
    assert process.stdout is not None
    assert process.stdout.read(1)
    time.sleep(0.05)
    assert process.poll() is None, "it ended before it was interrupted"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_reader_that_goes_away(tiny_model: Path) -> None:
    process = spawn(tiny_model, "--max-tokens", "500", "--ignore-eos", "--temperature", "1")
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_help_loads_no_numpy() -> None:
    code = "import sys; from openherd.cli import main; main(['run', '--help']); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
