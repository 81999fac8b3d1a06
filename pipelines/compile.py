"""Compile the pipelines to the YAML beside them: ``python -m pipelines.compile`` (``make compile-pipelines``)."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from kfp import compiler

from coda.runners.spec import with_gpus, with_image
from coda.steps.declarations import STEPS
from pipelines.adaptation import adaptation
from pipelines.training import training

PIPELINES = {"training": training, "adaptation": adaptation}
SEVERAL = [name.replace("_", "-") for name, step in STEPS.items() if step.processes]
"""Steps that can use several GPUs."""

HERE = Path(__file__).resolve().parent


def compile_pipelines(folder: Path = HERE, image: str = "", gpus: Mapping[str, int] | None = None) -> list[Path]:
    """Write ``<name>.yaml`` for every pipeline and return the files.

    Args:
        folder: Where to write.
        image: Image for all steps, best with a digest; the components' default when empty.
        gpus: Step -> GPUs that it asks for; it starts one process on each (docs/training.md). One each when not given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, pipeline in PIPELINES.items():
        path, draft = folder / f"{name}.yaml", folder / f".{os.getpid()}-{name}.yaml"
        compiler.Compiler().compile(pipeline, str(draft))
        if image:
            draft.write_text(with_image(draft.read_text(encoding="utf-8"), image), encoding="utf-8")
        for step, count in (gpus or {}).items():
            text = draft.read_text(encoding="utf-8")
            if count > 1 and f"exec-{step}:" in text:
                draft.write_text(with_gpus(text, step, count), encoding="utf-8")
        draft.replace(path)  # whole or not at all: a run may be submitted from it at this moment
        files.append(path)
    return files


def main() -> None:
    """Read the command line and compile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--image", default=os.environ.get("CODA_IMAGE", ""), help="image of the steps (CODA_IMAGE)")
    for step in SEVERAL:
        parser.add_argument(f"--{step}-gpus", dest=step, type=int, default=1, help=f"GPUs of the step {step}")
    arguments = parser.parse_args()
    for path in compile_pipelines(arguments.out, arguments.image, {step: vars(arguments)[step] for step in SEVERAL}):
        print(path)


if __name__ == "__main__":
    main()
