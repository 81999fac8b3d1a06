"""What the chosen method of self-supervision cannot do, reported before anything is computed (decision 0045)."""

from coda.config.params import MethodSection, Params
from coda.contracts.recipe import RECIPES
from coda.errors import Problem


def method_problems(params: Params) -> list[Problem]:
    """Return every candidate and option of adaptation that ``ssl.method`` does not know."""
    section: MethodSection = getattr(params, params.ssl.method)
    return [*_candidates(params, section), *_options(params, section)]


def _candidates(params: Params, section: MethodSection) -> list[Problem]:
    names = params.adaptation.candidates
    recipes = {name: RECIPES[name] for name in names if name in RECIPES}
    beyond = [name for name, recipe in recipes.items() if recipe.method and recipe.method not in section.adapts_by]
    if not beyond:
        return []
    method = params.ssl.method
    expected = f"candidates that ssl.method={method} can make: it "
    expected += f"adapts by {' and '.join(sorted(section.adapts_by))}" if section.adapts_by else "cannot adapt"
    instead = [name for name in names if name not in beyond]
    if "oda" in section.adapts_by:
        instead += [str(recipes[name].adapted_by("oda")) for name in beyond]
    remedy = f"Set adaptation.candidates=[{', '.join(dict.fromkeys(instead))}], or ssl.method=dino."
    return [Problem("adaptation.candidates", ", ".join(beyond), expected, remedy)]


def _options(params: Params, section: MethodSection) -> list[Problem]:
    if section.takes_hooks:
        return []
    adaptation = params.adaptation
    wanted = {
        "pretrain.keep_optimizer": (params.pretrain.keep_optimizer, False),
        "adaptation.carry_optimizer": (adaptation.carry_optimizer, False),
        "adaptation.trainable": (adaptation.trainable, "all"),
        "adaptation.anchor.weights": (adaptation.anchor.weights, 0.0),
        "adaptation.anchor.features": (adaptation.anchor.features, 0.0),
        "adaptation.diversity.strength": (adaptation.diversity.strength, 0.0),
        "adaptation.stopping.every": (adaptation.stopping.every, 0),
    }
    return [
        Problem(name, str(value), f"{off}: ssl.method={params.ssl.method} has no such option", f"Set {name}={off}.")
        for name, (value, off) in wanted.items()
        if value != off
    ]
