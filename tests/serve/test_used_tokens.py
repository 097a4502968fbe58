"""What a worker says that a request has used so far: what the engine has computed for it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from openherd.llm.driver import Driver
from openherd.llm.loading import LoadedModel, load_model
from openherd.options import EngineOptions, SamplingParams
from openherd.serve.worker.embeddings import prepare_embeddings
from openherd.serve.worker.jobs import prepare_job
from tests.unit.llm.tiny_file import write_model

ROWS = 16  # of a step
PROMPT = [5 + number % 40 for number in range(100)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    path = write_model(tmp_path_factory.mktemp("used") / "tiny.gguf")
    options = EngineOptions(context=448, max_batch_tokens=ROWS, max_seqs=4, prefix_caching=False)
    loaded = load_model(str(path), options=options, template=None, adapters={}, offline=True, progress=None)
    yield loaded
    loaded.engine.close()


def generate(n: int = 1) -> dict[str, Any]:
    params = asdict(SamplingParams(max_tokens=20, ignore_eos=True, n=n, seed=1))
    frame = {"op": "generate", "prompts": [PROMPT], "prompt_name": "prompt", "params": params, "schema": None}
    return {"id": 1, **frame, "adapter": None, "salt": ""}


@pytest.mark.parametrize("n", [1, 3])
def test_an_answer_has_used_what_of_its_prompt_was_computed_and_what_it_drew(model: LoadedModel, n: int) -> None:
    driver = Driver(model.engine)
    job = prepare_job(model, generate(n))
    before = model.engine.stats.num_prompt_tokens
    assert job.used(driver) == (0, 0)
    job.submit(driver)
    assert job.used(driver) == (0, 0), "it waits, and nothing was computed"
    seen = set()
    while driver.step():
        prompt_tokens, completion_tokens = job.used(driver)
        computed = model.engine.stats.num_prompt_tokens - before
        assert prompt_tokens == min(computed, len(PROMPT))
        assert completion_tokens == sum(answer.num_tokens for answer in job.answers)
        seen.add(prompt_tokens)
    assert {ROWS, 2 * ROWS, len(PROMPT)} <= seen, "the prompt came in one piece"
    assert job.used(driver) == (len(PROMPT), 20 * n)


def test_texts_have_used_what_was_computed_of_them(model: LoadedModel) -> None:
    driver = Driver(model.engine)
    texts = [PROMPT[:30]] * 10
    job = prepare_embeddings(model, {"id": 1, "op": "embed", "texts": texts, "adapter": None, "salt": ""})
    before = model.engine.stats.num_prompt_tokens
    job.submit(driver)
    assert job.used(driver) == (0, 0)
    seen = []
    while not job.is_done:
        driver.step()
        job.events()
        seen.append(job.used(driver)[0])
        assert seen[-1] == model.engine.stats.num_prompt_tokens - before
    assert seen[0] == ROWS
    assert seen[-1] == job.prompt_tokens == 300
