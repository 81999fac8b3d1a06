"""Mechanisms of action: what each does to the traits of a cell.

Hand-written after what the pharmacology literature describes for these classes in U2OS cells; the signs are the point,
the sizes are chosen so that a strong compound is recognisable from about ten cells. Two pairs are similar on purpose
(protein synthesis and mTOR; tubulin and Aurora kinase), as neighbours among real mechanisms are.
"""

import numpy as np
from numpy.typing import NDArray

from coda.simulation.traits import effect_vector

MECHANISMS: dict[str, dict[str, float]] = {
    # Microtubules gone: mitotic arrest and slippage, multi-lobed nuclei, Golgi scattered, mitochondria collapse.
    "tubulin inhibitor": {
        "mitotic": 2.0, "binucleate": 1.6, "micronuclei": 2.4, "nucleus_irregularity": 1.1, "cell_elongation": -0.2,
        "cell_radius_um": -0.12, "golgi_spread_um": 0.7, "golgi_level": -0.3, "mito_perinuclear": 0.6,
        "cortex": 0.3, "survival": -0.35,
    },
    # Cytokinesis fails: large polyploid nuclei in large flat cells.
    "Aurora kinase inhibitor": {
        "nucleus_radius_um": 0.42, "dna_amount": 0.70, "binucleate": 1.6, "nucleus_irregularity": 0.6,
        "cell_radius_um": 0.30, "nucleoli_area": 0.4, "mitotic": -1.0, "survival": -0.45, "mito_level": 0.1,
    },
    # Open chromatin, flat spindle-shaped cells with strong stress fibres.
    "HDAC inhibitor": {
        "nucleus_radius_um": 0.20, "dna_amount": -0.30, "chromatin_contrast": -0.7, "cell_elongation": 0.65,
        "cell_radius_um": 0.12, "fibres": 0.8, "golgi_level": 0.5, "agp_vesicles": 0.5, "nucleoli_area": -0.5,
        "survival": -0.2,
    },
    # Little new protein and RNA: dim RNA, weak nucleoli, thin ER, small Golgi.
    "protein synthesis inhibitor": {
        "rna_level": -0.70, "nucleoli_level": -0.7, "nucleoli_size": 1.5, "er_level": -0.40, "golgi_level": -0.6,
        "cell_radius_um": -0.10, "membrane": -0.15, "survival": -0.2,
    },
    # Aggresome at the nucleus, ER stress, shrunken and dying cells.
    "proteasome inhibitor": {
        "er_level": 0.35, "er_perinuclear": 0.8, "mito_perinuclear": 0.8, "cell_radius_um": -0.22, "condensed": 2.0,
        "nucleoli_level": 0.35, "agp_vesicles": 1.1, "outline_roughness": 0.5, "nucleus_radius_um": -0.08,
        "survival": -0.45,
    },
    # No membrane potential: dim, fragmented mitochondria.
    "mitochondrial uncoupler": {
        "mito_level": -0.75, "mito_fragmentation": 2.6, "mito_network": -1.0, "mito_perinuclear": -0.3,
        "er_level": 0.12, "agp_vesicles": 0.3,
    },
    # No contractility: stress fibres gone, long thin processes.
    "Rho kinase inhibitor": {
        "fibres": -2.2, "cortex": -0.7, "outline_roughness": 1.1, "cell_elongation": 0.55, "cell_radius_um": 0.14,
        "membrane": 0.15, "binucleate": 0.6,
    },
    # Starvation signal: small cells with small nucleoli and many lysosomes.
    "mTOR inhibitor": {
        "cell_radius_um": -0.20, "nucleus_radius_um": -0.16, "rna_level": -0.38, "nucleoli_area": -1.0,
        "agp_vesicles": 1.3, "mito_network": 1.2, "mitotic": -0.8, "er_level": -0.1,
    },
    # DNA damage: arrested cells grow large, nucleoli round up.
    "topoisomerase inhibitor": {
        "nucleus_radius_um": 0.28, "dna_amount": 0.30, "chromatin_contrast": -0.3, "cell_radius_um": 0.32,
        "nucleoli_size": 1.8, "nucleoli_level": -0.4, "fibres": 0.4, "mito_level": 0.25, "mitotic": -1.5,
        "survival": -0.55,
    },
    # Epithelial-like sheets: strong cortical actin, flat cells.
    "glucocorticoid receptor agonist": {
        "cortex": 0.9, "fibres": 0.5, "cell_radius_um": 0.16, "cell_elongation": -0.15, "golgi_level": -0.4,
        "er_level": 0.25, "mito_level": 0.15,
    },
    # Empty calcium stores: ER swells into vacuoles.
    "SERCA inhibitor": {
        "er_vacuoles": 2.2, "er_level": -0.25, "er_perinuclear": -0.5, "golgi_spread_um": 0.4, "mito_network": 0.8,
        "cell_radius_um": -0.08, "survival": -0.3,
    },
    # Transcription stops: nucleoli break up, few mitoses.
    "CDK inhibitor": {
        "nucleus_radius_um": -0.14, "dna_amount": -0.12, "nucleoli_level": -1.0, "nucleoli_size": -1.6,
        "rna_level": -0.35, "mitotic": -2.0, "chromatin_contrast": 0.5, "survival": -0.55,
    },
}  # fmt: skip
"""Mechanism -> effects on the traits' scales at full strength. A design uses the first so-and-so many."""

POSITIVE_CONTROL = {
    "cell_radius_um": -0.30, "nucleus_radius_um": -0.22, "condensed": 2.6, "outline_roughness": 1.2, "fibres": -0.8,
    "mito_level": 0.35, "er_level": 0.25, "survival": -0.8, "chromatin_contrast": 0.6,
}  # fmt: skip
"""A broad kinase inhibitor: unlike any mechanism above and easy to see, as a positive control should be."""


def mechanism_vectors(count: int) -> dict[str, NDArray[np.float64]]:
    """Return the first `count` mechanisms as effect vectors of shape (traits,)."""
    return {name: effect_vector(MECHANISMS[name]) for name in list(MECHANISMS)[:count]}
