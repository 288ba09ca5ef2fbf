"""Nearest concepts and when not to answer."""

from __future__ import annotations

import pytest
import torch

from models.concepts import ConceptTable


@pytest.fixture
def table() -> ConceptTable:
    table = ConceptTable(["cat", "dog", "car", "cup"], 4, temperature=0.1, sure_from=0.6)
    table.prototypes.data = torch.eye(4)
    return table


def test_the_nearest_prototype_is_likeliest_whatever_the_length(table: ConceptTable) -> None:
    for length in (0.01, 1.0, 100.0):
        probabilities = table(length * torch.tensor([[0.1, 0.9, 0.0, 0.0]]))
        assert probabilities.argmax().item() == 1
        assert probabilities.sum().item() == pytest.approx(1.0)


def test_an_embedding_between_all_is_not_sure(table: ConceptTable) -> None:
    both = table(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]]))
    assert table.is_sure(both).tolist() == [False, True]
    assert both[0].tolist() == pytest.approx([table.chance] * 4)
