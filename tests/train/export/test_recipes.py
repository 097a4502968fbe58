"""The recipes that openherd ships, and the data beside them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from openherd.train.presets import Facts, model_config, resolve
from openherd.train.recipe_checks import check_recipe, check_resolved
from openherd.train.recipe_file import load_recipe
from openherd.train.rows import RowError
from openherd.train.sources import find_files, read_rows

RECIPES = Path(__file__).parents[3] / "recipes"
DATA = RECIPES / "data"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_recipes_are_read_and_fit_together(path: Path) -> None:
    recipe = load_recipe(path)
    check_recipe(recipe)
    if not recipe.model.init:
        resolved = resolve(recipe, Facts(vocab_size=4096, tokens=10**9, documents=1000, longest=100))
        check_resolved(resolved, model_config(resolved.model, 4096))


def test_there_is_a_recipe_for_each_objective() -> None:
    assert {load_recipe(path).objective for path in RECIPES.glob("*.toml")} == {"pretrain", "sft", "dpo", "grpo"}


def test_the_books_are_three_megabytes_with_their_source_and_without_a_trademark() -> None:
    books = sorted(path for folder in ("books", "books_held_out") for path in (DATA / folder).iterdir())
    source = (DATA / "SOURCE.txt").read_text()
    assert "public domain" in source
    assert 2.5e6 < sum(book.stat().st_size for book in books) < 3.5e6
    for book in books:
        line = next(line for line in source.splitlines() if line.startswith(f"{book.parent.name}/{book.name}  "))
        assert f"{book.stat().st_size:,} bytes" in line
        text = book.read_text(encoding="utf-8")
        assert not re.search(r"gutenberg|copyright|transcriber|https?:", text, re.IGNORECASE), book.name


def test_the_conversations_are_what_their_script_makes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    script = tmp_path / "make_conversations.py"
    script.write_text((RECIPES / "make_conversations.py").read_text())
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True, timeout=60)
    for name in ("conversations.jsonl", "conversations_held_out.jsonl"):
        assert (tmp_path / "data" / name).read_bytes() == (DATA / name).read_bytes()


def test_conversations_are_read_and_none_is_held_out_that_is_learnt() -> None:
    found = {}
    for name in ("conversations.jsonl", "conversations_held_out.jsonl"):
        (file,) = find_files([DATA / name])
        assert not any(isinstance(row, RowError) for row in read_rows(file))
        found[name] = [json.dumps(json.loads(line)) for line in file.read_text().splitlines()]
    learnt, held_out = map(set, found.values())
    assert len(learnt) > 200
    assert len(learnt) == len(found["conversations.jsonl"]), "none twice"
    assert not learnt & held_out


def test_sums_and_books_are_right() -> None:
    """What the script's tables say is what the answers say: a sum by itself, an author by the source of the books."""
    source = (DATA / "SOURCE.txt").read_text()
    lines = [json.loads(line) for line in (DATA / "conversations.jsonl").read_text().splitlines()]
    answers = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in lines}
    sums = [(re.findall(r"\d+", q), a) for q, a in answers.items() if re.fullmatch(r"What is \d+ plus \d+\?", q)]
    assert len(sums) > 20
    assert all(str(int(a) + int(b)) == answer.rstrip(".").split()[-1] for (a, b), answer in sums)
    authors = {q[10:-1]: a for q, a in answers.items() if q.startswith("Who wrote ")}
    assert len(authors) > 5
    for book, answer in authors.items():
        line = next((line for line in source.splitlines() if f"  {book}" in line), None)
        if line is not None:  # a tale has no file of its own
            author = line.split("; ")[1].partition(" (")[0]
            assert answer == f"{book} was written by {author}."


def test_the_demonstration_is_a_sound_script() -> None:
    script = RECIPES / "demo_train.sh"
    assert script.stat().st_mode & 0o100
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
