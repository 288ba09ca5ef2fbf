"""Nearest concepts and when not to answer."""

from __future__ import annotations

import pytest
import torch

from models.concepts import ConceptTable


@pytest.fixture
def table() -> ConceptTable:
    table = ConceptTable(["cat", "dog", "car", "cup"], 4, temperature=0.1)
    table.prototypes.data = torch.eye(4)
    return table


def test_the_nearest_prototype_is_likeliest_whatever_the_length(table: ConceptTable) -> None:
    for length in (0.01, 1.0, 100.0):
        probabilities = table(length * torch.tensor([[0.1, 0.9, 0.0, 0.0]]))
        assert probabilities.argmax().item() == 1
        assert probabilities.sum().item() == pytest.approx(1.0)


def test_an_embedding_between_all_is_at_chance(table: ConceptTable) -> None:
    assert table(torch.ones(1, 4))[0].tolist() == pytest.approx([table.chance] * 4)


def test_it_is_sure_of_all_until_fitted_and_then_of_one_side(table: ConceptTable) -> None:
    embeds = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]])
    assert table.is_sure(embeds).tolist() == [True, True]
    table.seen.weight.data = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    table.seen.bias.data = torch.tensor([-0.9])
    assert table.is_sure(embeds).tolist() == [False, True], "whatever the length"
