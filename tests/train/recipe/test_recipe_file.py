"""Recipes from strangers: read strictly, or refused in words that name the file, the key and what is expected."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openherd.errors import HerdError, InputError, OptionError
from openherd.options import help_text
from openherd.train.recipe import SECTIONS, DataRecipe, ModelRecipe, OptimizerRecipe, Recipe, RunRecipe
from openherd.train.recipe_file import MAX_FILE_BYTES, as_toml, differences, load_recipe, parse_recipe
from tests.bounds import within_cpu

FILE = Path("/recipes/mine.toml")

GOOD = """
objective = "sft"
[model]
init = "smollm2"
[data]
train = ["tokens", "/elsewhere/tokens"]
[optimizer]
learning_rate = 1
schedule = "wsd"
[run]
out = "run"
steps = 30
[lora]
rank = 8
targets = ["q_proj"]
"""


def test_a_recipe_says_what_it_says_and_the_rest_has_its_default() -> None:
    recipe = parse_recipe(GOOD, FILE)
    assert (recipe.objective, recipe.run.steps, recipe.lora.rank, recipe.lora.targets) == ("sft", 30, 8, ("q_proj",))
    assert recipe.optimizer == replace(OptimizerRecipe(), learning_rate=1.0, schedule="wsd")
    assert recipe.data.train == (Path("/recipes/tokens"), Path("/elsewhere/tokens"))
    assert recipe.run.out == Path("/recipes/run")
    assert recipe.model.init == "smollm2", "a name of the catalogue is no file beside the recipe"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectiv = 'sft'", "objectiv is no key of a recipe; did you mean objective?"),
        ("objective = 'sfft'", "objective must be one of pretrain, sft, dpo, grpo, not 'sfft'"),
        ("objective = 3", "objective must be one of"),
        ("[runs]", "runs is no key of a recipe; did you mean run?"),
        ("run = 3", "run must be a table: its keys stand under [run]"),
        ("[run]\nstepz = 3", "run.stepz is no key of a recipe; did you mean steps?"),
        ("steps = 3", "steps is no key here\nsteps stands under [run]"),
        ("[data]\nsteps = 3", "data.steps is no key here\nsteps stands under [run]"),
        ("[run]\nsteps = 3.0", "run.steps must be a whole number, not 3.0"),
        ("[run]\nsteps = true", "run.steps must be a whole number, not True"),
        ("[run]\nsteps = -1", "run.steps must be a whole number from 0 to 2147483647, not -1"),
        ("[run]\ncompile = 1", "run.compile must be true or false, not 1"),
        ("[run]\nout = 1", "run.out must be text in quotes, not 1"),
        ("[data]\ntrain = 'x'", "data.train must be a list, such as [\"a folder\"], not 'x'"),
        ("[data]\ntrain = [1]", "data.train must be text in quotes, not 1"),
        ("[lora]\ntargets = ['a\\u0000']", "lora.targets must be text in quotes"),
        ("[optimizer]\nlearning_rate = nan", "optimizer.learning_rate must be a number from 0 to 10, not nan"),
        ("[optimizer]\nlearning_rate = 'x'", "optimizer.learning_rate must be a number, not 'x'"),
        ("[optimizer]\nlearning_rate = 1979-05-27", "optimizer.learning_rate must be a number, not datetime.date"),
        (f"[optimizer]\nlearning_rate = 1{'0' * 400}", "optimizer.learning_rate must be a number from 0 to 10"),
        ("[optimizer]\nschedule = 'linear'", "optimizer.schedule must be one of cosine, wsd, constant"),
        ("[grpo]\ngroup = 1", "grpo.group must be a whole number from 2"),
        ("[", "is not TOML"),
        ("[run]\n[run]", "is not TOML"),
        ("a = " + "[" * 30_000, "is not TOML: it is nested too deeply"),
        (".".join(["a"] * 30_000) + " = 1", "has a key of more than 32 parts"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_expected(text: str, message: str) -> None:
    text = text.replace("\\u0000", "\\u0000").replace("'a\\u0000'", '"a\\u0000"')

    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            parse_recipe(text, FILE)
        return str(caught.value)

    said = within_cpu(1, refusal)
    assert said.startswith(str(FILE))
    assert message in said


def test_a_file_is_bounded_and_must_be_text(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(InputError, match="is longer than"):
        load_recipe(path)
    path.write_bytes(b"objective = '\xff'")
    with pytest.raises(InputError, match="not UTF-8"):
        load_recipe(path)
    with pytest.raises(InputError, match="cannot read the recipe"):
        load_recipe(tmp_path)


@given(st.text(max_size=400) | st.binary(max_size=400).map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_recipe_or_an_error_for_a_person(text: str) -> None:
    """Fuzz: nothing but our own errors comes out of a stranger's file."""
    try:
        parse_recipe(text, FILE)
    except HerdError:
        return


@given(st.data())
def test_one_changed_line_is_read_or_refused(data: st.DataObject) -> None:
    """Structure-aware: a whole recipe with a line spoilt."""
    lines = as_toml(Recipe()).splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(0, len(lines[number])))
    junk = data.draw(st.sampled_from(["", "1e999", "[]", "[[]]", "-", '"', "{a=1}", "0x", "inf", "\x00", "'", "#"]))
    lines[number] = lines[number][:cut] + junk
    try:
        parse_recipe("\n".join(lines), FILE)
    except HerdError:
        return


paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(paths, st.floats(0, 10), st.booleans(), st.lists(paths, max_size=3))
def test_as_toml_reads_back_as_the_same_recipe(name: str, rate: float, pack: bool, folders: list[str]) -> None:
    recipe = Recipe(
        model=ModelRecipe(tokenizer=f"/vocabularies/{name}"),
        data=DataRecipe(train=tuple(Path("/data") / folder for folder in folders), pack=pack),
        optimizer=OptimizerRecipe(learning_rate=rate),
        run=RunRecipe(out=Path("/runs") / name),
    )
    assert parse_recipe(as_toml(recipe), FILE) == recipe


def test_flags_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[run]\nsteps = 3\nseed = 4\n")
    monkeypatch.chdir("/")
    recipe = load_recipe(path, {"": {"objective": "dpo"}, "run": {"steps": 9, "out": Path("here")}})
    assert (recipe.objective, recipe.run.steps, recipe.run.seed) == ("dpo", 9, 4)
    assert recipe.run.out == Path("/here"), "a path typed as a flag is one of the folder that one is in"


def test_differences_name_key_and_both_values() -> None:
    before = Recipe()
    after = replace(before, run=replace(before.run, steps=7, threads=3))
    assert differences(before, after, free={"run.threads"}) == ["run.steps: 0 before, 7 now"]


def test_each_key_is_one_flag_with_a_help_text() -> None:
    seen: set[str] = set()
    for section, options in SECTIONS.items():
        for entry in fields(options):
            assert entry.name not in seen, f"{section}.{entry.name} is a name of two flags"
            seen.add(entry.name)
            assert help_text(options, entry.name).endswith(".")
    with pytest.raises(OptionError):
        OptimizerRecipe(beta1=1.5)
