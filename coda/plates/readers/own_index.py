"""What the instrument's own index says of plates whose images a table names: the two lie in one folder often."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from coda.errors import ContractError
from coda.plates.readers.listing import PlateListing
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tree import Tree

Reader = Callable[[Tree, ReadOptions], list[PlateListing]]

FACTS = {
    "wells": "plate format", "pixel_size_um": "pixel size", "modality": "modality", "objective": "objective",
    "bit_depth": "bit depth",
}  # fmt: skip
"""What an index knows and a table mostly does not -> in words."""


def completed(
    tree: Tree, plates: Sequence[PlateListing], options: ReadOptions, readers: Mapping[str, Reader]
) -> list[PlateListing]:
    """Return plates with what the table left open, as far as an index beside the same images says it.

    Args:
        tree: The tree of both.
        plates: Plates as the table has them; what it says stays.
        options: How the tree is to be read.
        readers: Layouts of instruments that the tree shows signs of.
    """
    if all(getattr(plate, name) for plate in plates for name in FACTS):
        return list(plates)
    # which plane or time point the table names is the table's business
    asked = replace(options, plates=frozenset(), plane=None, planes={}, time=None, acquisition=None, renames={})
    known: list[tuple[str, PlateListing]] = []
    notes: list[str] = []
    for layout, read in readers.items():
        try:
            known += [(layout, plate) for plate in read(tree, asked)]
        except ContractError as error:
            reason = error.problems[0].found if error.problems else error.message
            notes.append(f"the {layout} index beside the table was not used ({reason})")
    return [_completed(plate, known, notes) for plate in plates]


def _completed(plate: PlateListing, known: Sequence[tuple[str, PlateListing]], notes: Sequence[str]) -> PlateListing:
    own = _paths(plate)
    beside = [(layout, other) for layout, other in known if own & _paths(other)]
    if len(beside) != 1:
        return replace(plate, notes=(*plate.notes, *notes))
    layout, other = beside[0]
    facts = {name: getattr(other, name) for name in FACTS if getattr(other, name) and not getattr(plate, name)}
    if not facts:
        return plate
    words = ", ".join(FACTS[name] for name in facts)
    return replace(
        plate, **facts, notes=(*plate.notes, f"{words} from the instrument's index ({layout}) beside the table")
    )


def _paths(plate: PlateListing) -> set[str]:
    images = (image for item in plate.fields for image in item.files.values())
    return {part.path for image in images for part in image.parts}
