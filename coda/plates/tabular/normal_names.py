"""Normal forms of names: what two people write differently and mean alike."""

import re
import unicodedata

_HYPHENS = re.compile("[\u00ad\u058a\u1806\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d]")
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "ο": "omicron", "π": "pi", "ρ": "rho",
    "σ": "sigma", "ς": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
}  # fmt: skip
_MARKS = str.maketrans("", "", "®™©\u200b\u200c\u200d\u2060\ufeff")


def simple(text: str) -> str:
    """Return a text in small letters, without accents, with one kind of hyphen and blank, and Greek letters by name."""
    text = _HYPHENS.sub("-", text.translate(_MARKS))
    letters = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join("".join(_GREEK.get(letter, letter) for letter in _HYPHENS.sub("-", letters)).split())


def hyphened(text: str) -> str:
    """Return the form in which names of compounds are compared: `simple`, with blanks as hyphens."""
    return re.sub(r"[\s_-]+", "-", simple(text))
