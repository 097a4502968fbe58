"""T10: documents of one row do not see each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from openherd.train.batch import Batch, Layout
from openherd.train.loss import nll_sum
from openherd.train.model.decoder import Decoder
from tests.train.model.tiny_models import VARIATIONS, random_documents, random_model, rows_of

FIRST, SECOND = 11, 14  # tokens that are read of each document


def packed(seed: int) -> Batch:
    """A row of two documents and padding; the seed changes the first alone."""
    (first,), (second,) = random_documents([FIRST + 1], seed=seed), random_documents([SECOND + 1], seed=3)
    return rows_of([[first, second]], FIRST + SECOND + 7)


def logits(model: Decoder, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model.logits(model(batch))[0]


@pytest.mark.parametrize("name", sorted(VARIATIONS))
def test_t10_another_document_changes_no_bit(name: str) -> None:
    model = random_model(VARIATIONS[name])
    before, after = logits(model, packed(1)), logits(model, packed(2))
    assert not torch.allclose(before[:FIRST], after[:FIRST], atol=0.1), "the first document did not change"
    if name == "experts":  # the number of rows that an expert gets depends on all of them, and a product's bits on that
        torch.testing.assert_close(before[FIRST:], after[FIRST:], rtol=0, atol=1e-5)
    else:
        assert torch.equal(before[FIRST:], after[FIRST:])


def test_the_check_above_sees_a_leak() -> None:
    """The same rows, said to be one document."""
    model = random_model()
    leaking = [replace(packed(seed), layout=Layout(1.0, one_document=True)) for seed in (1, 2)]
    before, after = (logits(model, batch) for batch in leaking)
    assert (before - after)[FIRST:].abs().max() > 0.1


@pytest.mark.parametrize("name", sorted(VARIATIONS))
def test_packed_equals_alone(name: str) -> None:
    model = random_model(VARIATIONS[name])
    documents = random_documents([9, 17, 6])
    together = logits(model, rows_of([documents], 40))
    column = 0
    for document in documents:
        n = len(document) - 1
        torch.testing.assert_close(
            together[column : column + n], logits(model, rows_of([[document]], n)), rtol=0, atol=2e-5
        )
        column += n


def test_no_gradient_crosses_documents() -> None:
    """The second document's loss leaves every embedding that only the first has at exactly 0."""
    model = random_model()
    first, second = list(range(32)), list(range(32, 64))
    batch = rows_of([[first, second]], 62)
    only_second = torch.where(batch.documents == 1, batch.weights, 0.0)
    batch = Batch(batch.token_ids, batch.positions, batch.documents, batch.targets, only_second)
    nll_sum(model, model(batch), batch).backward()
    gradient = model.get_parameter("model.embed_tokens.weight").grad
    assert gradient is not None
    assert not gradient[:32].any()
    assert gradient[32:63].abs().min(dim=-1).values.max() > 0


def test_padding_keeps_the_causal_path() -> None:
    """Rows of one document each, of different lengths: no mask is needed, and each row is as it is alone."""
    model = random_model()
    documents = random_documents([21, 9])
    batch = rows_of([[document] for document in documents], 24)
    assert batch.layout == Layout(28.0, one_document=True)
    with torch.no_grad():
        together = model.logits(model(batch))
    for row, document in enumerate(documents):
        n = len(document) - 1
        torch.testing.assert_close(together[row, :n], logits(model, rows_of([[document]], n)), rtol=0, atol=1e-5)
