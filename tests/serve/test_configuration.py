"""The TOML file: the flags' names and rules, flags over file, errors that name line and key."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openherd.cli import main
from openherd.errors import InputError
from openherd.options import EngineOptions
from openherd.serve.configuration import Configuration, Flags, configure, read_configuration
from openherd.serve.options import ModelOptions, ServeOptions
from openherd.serve.show import configuration_toml
from openherd.serve.toml_keys import toml_of

EXAMPLE = """
port = 9000
context = 4096
cors-origin = ["https://a.example", "https://b.example:8443"]
keys = "keys.txt"
threads = 6

[[models]]
name = "small"
model = "models/small.gguf"
context = 512
adapter = "tone=adapters/tone"

[[models]]
model = "smollm2"
template = "chatml"
load = "demand"
threads = 2
"""


def resolved(text: str, tmp_path: Path, *models: str, **typed: Any) -> Configuration:
    file = tmp_path / "herd.toml"
    file.write_text(text, encoding="utf-8")
    options = ServeOptions(**{k: v for k, v in typed.items() if k in ServeOptions.__dataclass_fields__})
    engine = EngineOptions(**{k: v for k, v in typed.items() if k in EngineOptions.__dataclass_fields__})
    flags = Flags(models, ModelOptions(), options, engine, frozenset(typed))
    return configure(flags, read_configuration(str(file)))


def test_a_file_sets_what_flags_do(tmp_path: Path) -> None:
    made = resolved(EXAMPLE, tmp_path)
    assert made.options == ServeOptions(
        port=9000, cors_origin=("https://a.example", "https://b.example:8443"), keys=str(tmp_path / "keys.txt")
    )
    (small, small_engine), (other, other_engine) = made.models
    assert small == ModelOptions(
        model=str(tmp_path / "models" / "small.gguf"), name="small", adapter=(f"tone={tmp_path}/adapters/tone",)
    )
    assert (small_engine.context, small_engine.threads) == (512, None)
    assert other == ModelOptions(model="smollm2", template="chatml", load="demand")
    assert (other_engine.context, other_engine.threads) == (4096, 2)
    assert made.engine.threads == 6


def test_flags_win_over_the_file_also_where_they_say_the_default(tmp_path: Path) -> None:
    made = resolved(EXAMPLE, tmp_path, port=8080, context=1024, threads=4)
    assert made.options.port == 8080
    assert [engine.context for _, engine in made.models] == [1024, 1024]
    assert (made.engine.threads, made.models[1][1].threads) == (4, 2)
    named = resolved(EXAMPLE, tmp_path, "small", "other.gguf")
    assert [model.model for model, _ in named.models] == [str(tmp_path / "models" / "small.gguf"), "other.gguf"]
    assert [engine.context for _, engine in named.models] == [512, 4096]


def test_a_model_of_the_hub_is_no_file_and_a_path_is_known_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[[models]]\nmodel = "hf:Org/Repo"\n[[models]]\nname = "b"\nmodel = "./x.gguf"\ncontext = 2048\n'
    made = resolved(text, tmp_path)
    assert [model.model for model, _ in made.models] == ["hf:Org/Repo", str(tmp_path / "x.gguf")]
    assert resolved(configuration_toml(made), tmp_path) == made
    monkeypatch.chdir(tmp_path)
    for written in ("./x.gguf", "x.gguf", str(tmp_path / "x.gguf"), "b"):
        ((model, engine),) = resolved(text, tmp_path, written).models
        assert (model.name, engine.context) == ("b", 2048), written


def test_typed_flags_are_told_from_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "herd.toml"
    file.write_text('port = 9000\nprefix-caching = false\nlog-prompts = true\n[[models]]\nname = "x"\n')
    for typed, expected in (
        ([], (9000, False, True)),
        (["--port", "8080"], (8080, False, True)),
        (["--prefix-caching", "--no-log-prompts"], (9000, True, False)),
    ):
        assert main(["serve", "--config", str(file), "--show-config", "--json", *typed]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["port"], shown["prefix-caching"], shown["log-prompts"]) == expected
    assert main(["serve", "--given", "port"]) == 2


def test_what_is_shown_can_be_read_back(tmp_path: Path) -> None:
    for text in (EXAMPLE, "", '[[models]]\nname = "a"\nmodel = "a \\u007f\\u0001\\"\\\\ é 😀.gguf"\n'):
        made = resolved(text, tmp_path)
        again = resolved(configuration_toml(made), tmp_path)
        assert again == made
        assert configuration_toml(again) == configuration_toml(made)
    shown = configuration_toml(resolved("", tmp_path))
    for options in (ServeOptions, EngineOptions, ModelOptions):
        for field in fields(options):
            assert f"{field.name.replace('_', '-')} =" in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nmax_body = 5", "line 2: unknown key 'max_body'; did you mean max-body?"),
        ("prot = 5", "line 1: unknown key 'prot'; did you mean port?"),
        ("zzzz = 5", "the top of the file takes host, port"),
        ('port = "80"', "line 1: port must be a whole number, not '80'"),
        ("port = 70000", "line 1: port must be from 0 to 65535, not 70000"),
        ("port = true", "port must be a whole number"),
        ("port = 1979-05-27", "port must be a whole number"),
        ("port.x = 1", "line 1: port must be a whole number"),
        ("load-wait = nan", "line 1: load-wait must be from"),
        ("load-wait = inf", "line 1: load-wait must be from"),
        ("log-prompts = 1", "log-prompts must be true or false"),
        ('log = "loud"', 'line 1: log must be "text" or "json" or "off"'),
        ("log = 1", 'log must be "text"'),
        ("cors-origin = [1]", "cors-origin must be a list of strings"),
        ('cors-origin = "*"', "line 1: cors-origin must be scheme://host"),
        ('cors-origin = "https://a.example/"', "cors-origin must be"),
        ("kv-dtype = 'f64'", 'kv-dtype must be "f16" or "f32"'),
        ("context = 0", "line 1: context must be a whole number from 1"),
        ("kv-memory = -1", "line 1: kv-memory must be"),
        ("offline = 1", "line 1: offline must be true or false"),
        ("models = 3", "line 1: models must be tables"),
        ("[models]\nname = 'a'", "line 1: models must be tables"),
        ("models = [1]", "models must be tables"),
        ("[[models]]\n[[models]]\nprt = 1", "line 3: unknown key 'prt'"),
        ("[[models]]\nport = 1", "line 2: unknown key 'port'; a [[models]] table takes"),
        ("[[models]]\nname = ''", "line 2: name must be of letters"),
        ("[[models]]\nload = 'never'", "line 2: load must be"),
        ("a = 1\na = 2", "is not TOML"),
        ("port = ", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("port = " + "1" * 5000, "is not TOML"),
        ("[[models]]\n" * 65, "at most 64"),
        (".".join(["a"] * 100_000) + " = 1", "a key of more than 32 parts"),
        ("x = { " + r'"\"" . ' * 100_000 + "a = 1 }", "a key of more than 32 parts"),
        ("cors-origin = '" + "x" * 100_000 + "'", "small letters"),
        ("[[models]]\nname = '" + "x" * 100_000 + "'", "at most 128"),
        ("#" * (2**20 + 1), "longer than"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_are_named_with_their_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        resolved(text, tmp_path)
    message = str(caught.value)
    assert said in message
    assert str(tmp_path / "herd.toml") in message
    assert len(message) < 1000


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"port = 1 # \xff")
    for file, said in ((tmp_path / "bad", "UTF-8"), (tmp_path / "none", "cannot read"), (tmp_path, "cannot read")):
        with pytest.raises(InputError, match=said):
            read_configuration(str(file))


def test_mutilated_files_raise_nothing_but_input_errors(tmp_path: Path) -> None:
    """Cut, doubled and changed anywhere, the example is read or refused in words."""
    rng = random.Random(5)
    alphabet = "=[]{}\"'#.,\n\\ \t-_0123456789abcxtrue\0\x7fé\ud800"
    num_refused = 0
    said: list[str] = []
    for _ in range(1500):
        text = list(EXAMPLE)
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(text))
            match rng.randrange(3):
                case 0:
                    del text[place : place + rng.randint(1, 20)]
                case 1:
                    text[place:place] = rng.choice(alphabet)
                case 2:
                    text[place:place] = text[rng.randrange(len(text)) :][:30]
            text = text or ["a"]
        file = tmp_path / "herd.toml"
        file.write_bytes("".join(text).encode("utf-8", "surrogatepass"))
        try:
            configure(
                Flags((), ModelOptions(), ServeOptions(), EngineOptions(), frozenset()), read_configuration(str(file))
            )
        except InputError as error:
            num_refused += 1
            said.append(str(error))
    assert all("herd.toml" in message for message in said)
    assert 300 < num_refused < 1500


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_string_is_written_as_toml_reads_it(text: str) -> None:
    import tomllib

    assert tomllib.loads(f"a = {toml_of(text)}") == {"a": text}
