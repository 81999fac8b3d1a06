"""By how much the images of a batch are reduced: by a fixed factor, or to a common size of the pixel."""

from coda.config.params import Ingest
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest
from coda.errors import Problem


def scaling_factor(manifest: BatchManifest, params: Ingest) -> float:
    """Return the factor in (0, 1] that the images of a batch are scaled by before they are stored.

    It is 1 for images that were prepared already; raw pixel by `pixel_size_um` of the parameters where that is given
    (the same structure then has the same size in pixels on every microscope); else `scaling_factor`.
    """
    if manifest.preparation != "raw":
        return 1.0
    if params.pixel_size_um is None:
        return params.scaling_factor
    return min(1.0, manifest.instrument.pixel_size_um / params.pixel_size_um)


def scaling_problem(manifest: BatchManifest, params: Ingest) -> Problem | None:
    """Return what stands against a common size of the pixel, or None.

    Pixels that are larger already would have to be made up. A part in a hundred is left to rounding.
    """
    size, wanted = manifest.instrument.pixel_size_um, params.pixel_size_um
    if wanted is None or size <= 1.01 * wanted:
        return None
    found = f"pixels of {size:g} um" + ("" if manifest.preparation == "raw" else ", prepared already")
    remedy = f"Set ingest.pixel_size_um to {size:g} or more, and store all batches of a model at that size."
    return Problem(MANIFEST_NAME, found, f"pixels of at most {wanted:g} um (ingest.pixel_size_um)", remedy)
