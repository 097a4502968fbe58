"""T6 and T7: what is refused, with what differs; what is kept; and that nothing is unpickled."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from openherd.checkpoints.new_file import BusyError
from openherd.errors import FormatError, InputError
from openherd.train.checkpoint import FOLDER, MANIFEST, find, locked, name_of, read_saved, require_sound, steps_of
from openherd.train.loop import Trainer
from openherd.train.recipe import Recipe
from tests.train.loop.conftest import digests_of
from tests.train.loop.forks import Forks
from tests.train.loop.small_run import CONFIG, STEPS, events, recipe_of, trainer, write_data


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of twelve steps."""
    out = tmp_path_factory.mktemp("trained")
    made = trainer(recipe_of(out, data))
    made.progress = lambda step, metrics: setattr(made.interrupts, "received", 15 if step == 8 else None)
    assert made.run().exit_status == 143
    return out


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_t6_a_flipped_byte_of_any_file_is_refused(copied: Path, data: Path) -> None:
    """The message names the file and both hashes, and how to go on; without the folder the run does go on."""
    newest = find(copied)
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        sound = path.read_bytes()
        spoilt = bytearray(sound)
        spoilt[len(spoilt) // 2] ^= 1
        path.write_bytes(spoilt)
        with pytest.raises(FormatError) as refused:
            trainer(recipe_of(copied, data)).run()
        assert path.relative_to(newest).as_posix() in str(refused.value) or path.name == MANIFEST
        path.write_bytes(sound)
    require_sound(newest)
    model = next(newest.rglob("model/*"))
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"bytes when it was saved, \d+ now(.|\n)*remove .*step-00000008"):
        trainer(recipe_of(copied, data)).run()
    shutil.rmtree(newest)
    assert trainer(recipe_of(copied, data)).run().state.step == STEPS
    assert events(copied, "resume")[-1]["step"] == 4


def test_t6_a_flipped_byte_anywhere_in_a_manifest_is_refused(copied: Path) -> None:
    path = find(copied) / MANIFEST
    sound = path.read_bytes()
    for at in range(0, len(sound), 1 if os.environ.get("OPENHERD_FULL_TESTS") else 5):
        spoilt = bytearray(sound)
        spoilt[at] ^= 1 << at % 8
        path.write_bytes(spoilt)
        with pytest.raises(FormatError):
            require_sound(path.parent)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda r: replace(r, optimizer=replace(r.optimizer, beta2=0.5)), "optimizer.beta2: 0.95 before, 0.5 now"),
        (lambda r: replace(r, run=replace(r.run, seed=4)), "run.seed: 3 before, 4 now"),
        (lambda r: replace(r, data=replace(r.data, seq_len=20)), "data.seq_len: 24 before, 20 now"),
        (lambda r: replace(r, run=replace(r.run, steps=99)), "run.steps: 12 before, 99 now"),
    ],
)  # fmt: skip
def test_t6_another_recipe_is_refused_with_what_differs(
    change: Callable[[Recipe], Recipe], line: str, trained: Path, data: Path
) -> None:
    with pytest.raises(InputError, match="belongs to another run") as refused:
        trainer(change(recipe_of(trained, data))).run()
    assert line in str(refused.value).partition("\n")[0].partition("another run: ")[2].split("; ")


def test_t6_other_data_another_tokenizer_or_model_are_refused(trained: Path, data: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "other", seed=1).path
    with pytest.raises(InputError, match="data and objective: likelihood:"):
        trainer(recipe_of(trained, other)).run()
    with pytest.raises(InputError, match=r"tokenizer: nothing before, abc now"):
        trainer(recipe_of(trained, data), facts={"tokenizer": "abc"}).run()
    with pytest.raises(FormatError, match=r"F32 \[48, 32\], and F32 \[40, 32\] is needed"):
        trainer(recipe_of(trained, data), config=replace(CONFIG, ffn_dim=40)).run()


def test_what_changes_no_numbers_may_change(copied: Path, data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    recipe = recipe_of(copied, moved, micro_rows=2, eval_every=3, checkpoint_every=5, keep=1, log_every=2)
    assert trainer(recipe).run().state.step == STEPS


def test_a_finished_run_says_so_and_trains_no_more(copied: Path, data: Path) -> None:
    assert trainer(recipe_of(copied, data)).run().state.step == STEPS
    again = trainer(recipe_of(copied, data))
    again._step = None  # type: ignore[assignment, method-assign]
    outcome = again.run()
    assert (outcome.exit_status, outcome.checkpoint) == (0, copied / FOLDER / name_of(STEPS))


def test_the_newest_and_the_best_are_kept(data: Path, tmp_path: Path) -> None:
    made = trainer(recipe_of(tmp_path, data, checkpoint_every=2, eval_every=2, keep=2))
    losses = dict(zip(range(0, 13, 2), (5.0, 4.0, 3.0, 3.5, 3.5, float("nan"), 3.0), strict=True))
    made.evaluation = lambda model, stop: {"loss": losses[made.state.step]}
    made.run()
    assert steps_of(tmp_path) == [4, 10, 12]
    assert find(tmp_path, "best").name == name_of(4)
    assert find(tmp_path, 10).name == name_of(10)
    assert find(tmp_path).name == name_of(12)
    with pytest.raises(InputError, match="step 6 is not kept; there are checkpoints of steps 4, 10, 12"):
        find(tmp_path, 6)
    with pytest.raises(InputError, match="holds no checkpoint"):
        find(tmp_path / "nowhere")


def test_the_best_step_is_the_last_one_though_a_signal_cut_its_evaluation(data: Path, tmp_path: Path) -> None:
    losses = {0: 5.0, 4: 4.0, 8: 3.0, STEPS: 2.0}

    def falling(made: Trainer, cut: bool) -> Trainer:
        def evaluation(model: object, stop: object) -> dict[str, float]:
            if cut and made.state.step == STEPS:
                signal.raise_signal(signal.SIGTERM)
            return {"loss": losses[made.state.step]}

        made.evaluation = evaluation
        return made

    assert falling(trainer(recipe_of(tmp_path, data)), cut=True).run().exit_status == 128 + signal.SIGTERM
    assert read_saved(find(tmp_path)).state.evaluated < STEPS
    assert falling(trainer(recipe_of(tmp_path, data)), cut=False).run().exit_status == 0
    assert find(tmp_path, "best").name == name_of(STEPS)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [".lock", name_of(8), name_of(STEPS)]


def test_half_written_and_half_removed_folders_are_named_and_passed_over(copied: Path, data: Path) -> None:
    newest = find(copied)
    for name in (".step-00000012.partial", ".step-00000001.old"):
        shutil.copytree(newest, copied / FOLDER / name)
        (copied / FOLDER / name / MANIFEST).unlink()
    trainer(recipe_of(copied, data)).run()
    assert [event["path"] for event in events(copied, "removed")] == [".step-00000001.old", ".step-00000012.partial"]
    assert steps_of(copied) == [8, 12]
    assert sorted(path.name for path in (copied / FOLDER).iterdir()) == [".lock", name_of(8), name_of(12)]


def test_two_runs_do_not_share_a_folder(copied: Path, data: Path) -> None:
    with locked(copied), pytest.raises(BusyError, match="another process trains in"):
        trainer(recipe_of(copied, data)).run()


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_strange_files_in_a_checkpoint_are_refused(kind: str, copied: Path) -> None:
    newest = find(copied)
    (newest / "state.json").unlink()
    if kind == "pipe":
        os.mkfifo(newest / "state.json")
    else:
        (newest / "state.json").symlink_to("/dev/zero")
    for read in (require_sound, read_saved):
        with pytest.raises(FormatError, match=r"state\.json"):
            read(newest)


def test_t7_resume_unpickles_nothing(copied: Path, data: Path, forks: Forks, uninterrupted: dict[str, str]) -> None:
    """The counters are proven by an unpickling of their own first."""
    assert forks.call("resume_without_pickle", out=copied, data=data) == 0
    control = {"pickle.loads", "pickle.find_class", "pickle.Unpickler"}
    assert set(json.loads((copied / "control.json").read_text())) == control
    assert json.loads((copied / "unpickled.json").read_text()) == []
    assert events(copied, "resume")[-1]["step"] == 8
    assert digests_of(copied) == uninterrupted
