"""How candidates, measures and gains are called in the gate's sentences."""

from coda.contracts.gate import Measure

WAYS = {
    "incumbent": "the model that serves this source already",
    "unadapted": "the model as it is",
    "classical": "the classical profile with a linear model, which no network serves",
    "aligned": "the model as it is, on features standardised for this batch",
    "rescaled": "the model as it is, on features of the source's mean and spread",
    "coral": "the model as it is, on features aligned with the source's statistics",
    "coda": "the model adapted to this batch",
    "coda+aligned": "the model adapted to this batch, on standardised features",
    "coda+rescaled": "the model adapted to this batch, on features of the source's mean and spread",
    "coda+coral": "the model adapted to this batch, on features aligned with the source's statistics",
    "oda": "the model adapted to this batch without pairs",
    "oda+aligned": "the model adapted to this batch without pairs, on standardised features",
    "oda+rescaled": "the model adapted to this batch without pairs, on features of the source's mean and spread",
    "oda+coral": "the model adapted to this batch without pairs, on features aligned with the source's statistics",
}
"""Candidate -> how it is called in a sentence."""

REFERENCES = {
    "pixels": "the plain brightness of the stains, which needs no model",
    "untrained": "an extractor that never learned anything",
}
"""Reference -> how it is called in a sentence."""


def way(name: str) -> str:
    """Return how a candidate is called in a sentence, with its name."""
    return f"{WAYS[name]} ({name})" if name in WAYS else name


def gain_text(gain: Measure) -> str:
    """Return a gain with its interval: '+0.12 (95 % interval +0.08 to +0.16, 24 compounds)'."""
    return f"{gain.value:+.2f} (95 % interval {gain.low or 0:+.2f} to {gain.high or 0:+.2f}, {gain.n} compounds)"


def capital(text: str) -> str:
    """Return a sentence with a capital first letter."""
    return text[:1].upper() + text[1:]
