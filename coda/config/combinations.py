"""Combinations of parameters that cannot work together, each with its remedy."""

from coda.config.methods import method_problems
from coda.config.optimizer_configs import optimizer_configs
from coda.config.options import option_problems
from coda.config.params import OptimizerConfig, Params
from coda.contracts.recipe import CLASSICAL, RECIPES
from coda.errors import Problem


def impossible_combinations(params: Params) -> list[Problem]:
    """Return every combination of valid values that cannot work."""
    problems: list[Problem] = []
    _views(params, problems)
    _channels(params, problems)
    for name, budget in optimizer_configs(params).items():
        _budget(name, budget, problems)
    _candidates(params, problems)
    problems += option_problems(params)
    problems += method_problems(params)
    _masked_autoencoder(params, problems)
    return problems


def _views(params: Params, problems: list[Problem]) -> None:
    crops = params.crops
    for name in ("global_size", "local_size"):
        size = getattr(crops, name)
        if size > crops.centre:
            remedy = f"Lower crops.{name} or raise crops.centre."
            problems.append(Problem(f"crops.{name}", str(size), f"at most crops.centre ({crops.centre})", remedy))
        patch = params.extractor.patch_size
        if size % patch:
            remedy = f"Use a multiple of the extractor's patch size, for example {max(patch, size - size % patch)}."
            problems.append(Problem(f"crops.{name}", str(size), f"a multiple of {patch}", remedy))
    if crops.global_size * crops.eval_grid > crops.centre * 2:
        remedy = "Lower crops.eval_grid."
        problems.append(
            Problem("crops.eval_grid", str(crops.eval_grid), "crops that mostly do not repeat pixels", remedy)
        )


def _channels(params: Params, problems: list[Problem]) -> None:
    missing = [name for name in params.extractor.channels if name not in params.ingest.channels]
    if missing:
        remedy = "Add them to ingest.channels or drop them here."
        problems.append(Problem("extractor.channels", ", ".join(missing), "stains that ingest stores", remedy))
    width, heads = params.extractor.overrides.get("embed_dim"), params.head.num_heads
    if width is not None and width % heads:
        remedy = "Choose a divisor of extractor.overrides.embed_dim."
        problems.append(Problem("head.num_heads", str(heads), f"a divisor of {width}", remedy))


def _budget(name: str, budget: OptimizerConfig, problems: list[Problem]) -> None:
    if (budget.epochs is None) == (budget.iterations is None):
        found = f"epochs {budget.epochs}, iterations {budget.iterations}"
        problems.append(Problem(name, found, "exactly one of the two", "Set the other one to null."))
    if budget.epochs is not None and budget.warmup_epochs >= budget.epochs:
        remedy = "Lower warmup_epochs."
        expected = f"less than {name}.epochs ({budget.epochs})"
        problems.append(Problem(f"{name}.warmup_epochs", str(budget.warmup_epochs), expected, remedy))
    if budget.learning_rate_end > budget.learning_rate:
        expected = f"at most {name}.learning_rate ({budget.learning_rate})"
        problems.append(
            Problem(f"{name}.learning_rate_end", str(budget.learning_rate_end), expected, "Swap or lower it.")
        )


def _masked_autoencoder(params: Params, problems: list[Problem]) -> None:
    mae, patch = params.mae, params.extractor.patch_size
    patches = (params.crops.global_size // patch) ** 2
    if not 0 < round(patches * mae.mask_ratio) < patches:
        found, expected = f"{mae.mask_ratio} of {patches} patches", "at least one patch hidden and one left"
        remedy = "Change it, or use smaller patches or larger global crops."
        problems.append(Problem("mae.mask_ratio", found, expected, remedy))
    crops = params.crops.eval_grid**2
    if params.ttt.copies < crops:
        expected = f"at least one of each of the {crops} evaluation crops"
        problems.append(Problem("ttt.copies", str(params.ttt.copies), expected, "Raise it, or lower crops.eval_grid."))
    for divisor, name in ((mae.decoder_heads, "mae.decoder_heads"), (4, "the positions' four parts")):
        if mae.decoder_width % divisor:
            remedy = f"Use a multiple of {divisor}, or correct mae.decoder_heads."
            expected = f"a multiple of {name} ({divisor})"
            problems.append(Problem("mae.decoder_width", str(mae.decoder_width), expected, remedy))


def _candidates(params: Params, problems: list[Problem]) -> None:
    names = params.adaptation.candidates
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        problems.append(
            Problem("adaptation.candidates", ", ".join(unknown), f"some of {', '.join(RECIPES)}", "Remove them.")
        )
    baseline = params.gate.policy.baseline
    if baseline not in names:
        remedy = "Add it to adaptation.candidates."
        problems.append(Problem("gate.policy.baseline", baseline, "one of adaptation.candidates", remedy))
    for name, recipe in ((name, RECIPES[name]) for name in names if name in RECIPES):
        # the classical head is trained always
        if recipe.head != CLASSICAL and recipe.head not in params.head.alignments:
            needed = f"a head trained with alignment {recipe.head!r}"
            remedy = f"Add {recipe.head!r} to head.alignments or drop the candidate."
            problems.append(Problem("adaptation.candidates", name, needed, remedy))
