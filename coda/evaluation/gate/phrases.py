"""How candidates, measures and gains are called in the gate's sentences."""

from coda.contracts.gate import Measure
from coda.contracts.recipe import RECIPES

REFERENCES = {
    "pixels": "the plain brightness of the stains, which needs no model",
    "untrained": "an extractor that never learned anything",
}
"""Reference -> how it is called in a sentence."""


def way(name: str) -> str:
    """Return how a candidate is called in a sentence, with its name."""
    if name == "incumbent":
        return f"the model that serves this source already ({name})"
    return f"{RECIPES[name].sentence} ({name})" if name in RECIPES else name


def gain_text(gain: Measure) -> str:
    """Return a gain with its interval: '+0.12 (95 % interval +0.08 to +0.16, 24 compounds)'."""
    return f"{gain.value:+.2f} (95 % interval {gain.low or 0:+.2f} to {gain.high or 0:+.2f}, {gain.n} compounds)"


def capital(text: str) -> str:
    """Return a sentence with a capital first letter."""
    return text[:1].upper() + text[1:]
