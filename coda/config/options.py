"""Options of adaptation that cannot work together, or not with the network they are meant for."""

from typing import Literal

from coda.config.params import Params
from coda.errors import Problem


def option_problems(params: Params) -> list[Problem]:
    """Return every combination of adaptation's options that cannot work."""
    problems: list[Problem] = []
    adaptation, heads = params.adaptation, params.head.alignments
    stopping, diversity = adaptation.stopping, adaptation.diversity
    if stopping.criterion != "none" and not stopping.every:
        remedy = "Set adaptation.stopping.every, for example to a tenth of the iterations."
        found = f"0 with criterion {stopping.criterion!r}"
        problems.append(Problem("adaptation.stopping.every", found, "at least 1 iteration between evaluations", remedy))
    if stopping.criterion == "marginal_entropy" and diversity.strength > 0:
        remedy = "Use adaptation.stopping.criterion=agreement, or adaptation.diversity.strength=0."
        expected = "a criterion that the training does not optimise itself: diversity raises this one whatever it costs"
        problems.append(Problem("adaptation.stopping.criterion", "marginal_entropy with diversity", expected, remedy))
    looks_through: Literal["none", "standardise"] = "standardise" if stopping.alignment == "standardise" else "none"
    for name, head, used in (
        ("diversity.head", diversity.head, diversity.strength > 0),
        ("stopping.alignment", looks_through, stopping.every > 0),
    ):
        if used and head not in heads:
            remedy, expected = f"Add {head!r} to head.alignments.", f"a head trained with alignment {head!r}"
            problems.append(Problem(f"adaptation.{name}", head, expected, remedy))
    _trainable(params, problems)
    if adaptation.carry_optimizer and (adaptation.trainable, adaptation.dino_head) != ("all", "trained"):
        found = f"true with trainable {adaptation.trainable!r} and dino_head {adaptation.dino_head!r}"
        expected = "the weights that pretraining trains: trainable 'all' and dino_head 'trained'"
        problems.append(Problem("adaptation.carry_optimizer", found, expected, "Set one or the other."))
    return problems


def _trainable(params: Params, problems: list[Problem]) -> None:
    adaptation, network = params.adaptation, params.extractor.overrides
    depth, width = network.get("depth"), network.get("embed_dim")
    blocks = adaptation.trainable_blocks
    if adaptation.trainable.endswith("_blocks") and depth is not None and blocks > depth:
        expected = f"at most the extractor's {depth} blocks"
        remedy = "Lower it, or set adaptation.trainable=all."
        problems.append(Problem("adaptation.trainable_blocks", str(blocks), expected, remedy))
    if adaptation.trainable == "low_rank" and width is not None and adaptation.low_rank_rank > width:
        expected, remedy = f"at most the extractor's width ({width})", "Lower it, or set adaptation.trainable=all."
        problems.append(Problem("adaptation.low_rank_rank", str(adaptation.low_rank_rank), expected, remedy))
