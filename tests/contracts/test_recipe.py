"""Candidates as values: the names, orders and heads that records have had, written down by hand."""

from typing import get_args

import pytest

from coda.adaptation.candidates import candidates_for
from coda.contracts.recipe import ALIGNMENTS, METHODS, RECIPES, UNADAPTED, Alignment, HeadAlignment, Method, Recipe
from coda.evaluation.gate.phrases import way
from coda.monitoring.report.decision import candidate_words
from coda.networks.alignment import ALIGN

OF_BEFORE = {
    "unadapted": (None, "none", "none"),
    "classical": (None, "standardise", "classical"),
    "aligned": (None, "standardise", "standardise"),
    "rescaled": (None, "rescale", "none"),
    "coral": (None, "coral", "none"),
    "oda": ("oda", "none", "none"),
    "oda+aligned": ("oda", "standardise", "standardise"),
    "oda+rescaled": ("oda", "rescale", "none"),
    "oda+coral": ("oda", "coral", "none"),
    "coda": ("coda", "none", "none"),
    "coda+aligned": ("coda", "standardise", "standardise"),
    "coda+rescaled": ("coda", "rescale", "none"),
    "coda+coral": ("coda", "coral", "none"),
}
"""Name in records -> method, alignment and head; from simple to involved, as the gate has preferred them."""


def test_every_candidate_has_the_name_and_the_place_that_it_had():
    assert list(RECIPES) == list(OF_BEFORE)
    for name, (method, alignment, head) in OF_BEFORE.items():
        recipe = RECIPES[name]
        assert (recipe.method, recipe.alignment, recipe.head) == (method, alignment, head)
        assert str(recipe) == name
        assert RECIPES[str(recipe.adapted_by("oda"))] == recipe.adapted_by("oda") or name == "classical"
    found = candidates_for(list(reversed(OF_BEFORE)), "coda")
    assert [candidate.name for candidate in found] == list(OF_BEFORE)
    assert [candidate.complexity for candidate in found] == list(range(len(OF_BEFORE)))
    assert [candidate.method for candidate in found] == [method for method, _, _ in OF_BEFORE.values()]
    assert [candidate.head for candidate in found] == [head for _, _, head in OF_BEFORE.values()]


def test_what_is_named_is_what_there_is():
    assert set(ALIGNMENTS) == set(get_args(Alignment)) == set(ALIGN)
    assert set(METHODS) == {None, *get_args(Method)}
    assert {recipe.head for recipe in RECIPES.values()} == set(get_args(HeadAlignment))


@pytest.mark.parametrize("tell", [way, candidate_words])
def test_each_is_told_in_words_of_its_own(tell):
    told = [tell(name) for name in (*RECIPES, "incumbent")]
    assert len(set(told)) == len(told)
    assert tell("of another version") == "of another version"
    assert candidate_words("coda+rescaled").endswith("the training laboratory's mean and spread")


def test_another_method_of_the_same_alignment():
    assert str(Recipe.of("coda", "coral").adapted_by("oda")) == "oda+coral"
    assert Recipe.of("coda", "none").adapted_by(None) == UNADAPTED
