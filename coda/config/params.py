"""The Params model: every hyper-parameter of the project, strict, with its range.

Values live in `params.yaml` (the paper's) and its overlays; nothing here has a default that a run could fall back on
silently. Ranges and combinations are checked before any compute; `coda.config.load` reports all problems at once.
"""

import json
import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coda.config.moved import completed
from coda.config.policy import GatePolicy
from coda.contracts.channels import ChannelName, ChannelNames
from coda.contracts.recipe import Alignment, Method

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the parameters: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Illumination(Section):
    """Per-plate, per-channel illumination function (as DeepProfiler prepares it)."""

    enabled: bool
    down_scale_factor: Count
    median_filter_size: Count = Field(description="Diameter of the median filter, in down-scaled pixels.")
    floor_percentile: Annotated[float, Field(ge=0, le=50)]
    min_fields: Count = Field(description="Readable fields a plate needs; with fewer its images are not corrected.")
    prefer_given: bool = Field(description="Use the functions that a delivery brings, where it has one for each stain.")


class EarlierFunction(Section):
    """A file that `coda plates illumination` wrote."""

    file: str = Field(description="Path, or s3:// address.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Ingest(Section):
    """Raw TIFF to plate store."""

    channels: ChannelNames = Field(description="Channels that must be present and are stored, in this order.")
    renamed: dict[ChannelName, ChannelName] = Field(
        default_factory=dict,
        description="Channel of a delivery -> name that it is stored under, as models know it; others keep theirs.",
    )
    scaling_factor: Annotated[float, Field(gt=0, le=1)]
    pixel_size_um: Positive | None = Field(
        description="Edge of a stored pixel that all batches are brought to, in place of scaling_factor."
    )
    illumination: Illumination
    earlier_illumination: dict[str, EarlierFunction] = Field(
        default_factory=dict,
        exclude_if=lambda files: not files,
        description="Instrument, as manifests name it -> illumination function of an earlier plate, used for all its "
        "plates that bring none; plates of other instruments get their own.",
    )
    low_percentile: Annotated[float, Field(ge=0, lt=50)]
    high_percentile: Annotated[float, Field(gt=50, le=100)]
    plate_high_percentile: Annotated[float, Field(gt=50, le=100)]
    solvents: tuple[str, ...] = Field(
        default=(),
        description="Names of solvents, which no treatment may have; () for those of coda/plates/solvents.yaml.",
    )
    max_side_px: Count = Field(description="Largest accepted image side; anything larger is refused unread.")
    workers: Count
    scratch_gib: Annotated[float, Field(ge=0)] = Field(
        description="Local disk for decoded fields between the two passes; what does not fit is read and decoded twice."
    )


class Quality(Section):
    """Quorum and image limits of the validation step; the expectations themselves are in the suite."""

    suite: str = Field(description="Name of the suite file in coda/quality/suites.")
    plate_quorum: Share = Field(description="Share of a plate's expected fields that must be readable.")
    batch_quorum: Share = Field(description="Share of a batch's plates that must be accepted.")
    min_negcon_wells: int = Field(ge=0, description="Negative-control wells a plate must have.")
    history_mads: Positive = Field(description="Accepted distance from the history's median, in MADs.")
    min_history_plates: Count = Field(description="Accepted plates needed before history is compared.")
    red_flags: str = Field(
        description="List of plates with known faults (docs/quality.md): a CSV file or s3:// address; '' for none."
    )


class Extractor(Section):
    """The vision transformer that is adapted (paper section 4)."""

    arch: str = Field(description="A timm ViT by name (docs/bring_your_backbone.md).")
    channels: ChannelNames = Field(description="Channels the network sees, by name, in this order.")
    overrides: dict[str, int] = Field(description="timm constructor arguments: embed_dim, depth, num_heads, ...")
    weights: Literal["imagenet", "random"] | str = Field(description="'imagenet', 'random' or a safetensors path.")
    pool: Literal["cls", "mean"] = Field(
        description="Its feature: the class token, or the mean of all tokens. What DINO's head and the gate read."
    )
    drop_path: Share = Field(description="Stochastic depth of the student; the teacher has none.")

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels, as the overrides or the network's name say; 16 where neither does."""
        named = re.search(r"patch(\d+)", self.arch)
        return self.overrides.get("patch_size", int(named[1]) if named else 16)


class Crops(Section):
    """Multi-crop views (paper section 4); sizes in stored pixels."""

    centre: Count = Field(description="Centre crop that views are cut from.")
    global_size: Count
    local_size: Count
    locals_per_image: Annotated[int, Field(ge=0)] = Field(description="Local views from each image of the pair.")
    flips: bool
    rotations: bool = Field(description="Also turn by multiples of 90 degrees (not in the paper).")
    intensity_probability: Share
    brightness_sd: Annotated[float, Field(ge=0)]
    gamma_sd: Annotated[float, Field(ge=0)]
    normalise: Literal["crop", "image"]
    eval_grid: Count = Field(description="Evaluation crops a side: 1 is the paper's centre crop, 2 a 2x2 grid.")


class Pairs(Section):
    """Which two images of one treatment form a pair (paper section 4)."""

    by: Literal["batch", "plate", "none"] = Field(description="What must differ; 'none' is plain DINO.")
    no_partner: Literal["error", "other_plate", "same_image", "drop"]
    control_share: Share = Field(description="Cap on the share of negative-control fields in an epoch.")


class Split(Section):
    """Which plates no step of training sees (paper section 4)."""

    validation_batches: Count = Field(
        description="Last batches (or plates) of the source, by name, held out from all training."
    )
    by: Literal["batch", "plate", "well"] = Field(
        description="What is held out: batches; plates, or one well in five, for a source of one batch."
    )


class TokenGroups(Section):
    """Where statistics of tokens come from, for every head and every candidate alike (decision 0006)."""

    by: Literal["batch", "plate"] = Field(description="Group that token statistics are fitted on.")
    wells: Literal["all", "negcon"] = Field(description="All of its wells, or negative controls only.")


class Ssl(Section):
    """Which self-supervision a line of models is pretrained and adapted by (decision 0045)."""

    method: Literal["dino", "dinov2", "mae"] = Field(description="Its own parameters stand in the section of its name.")


class MethodSection(Section):
    """The section of a method of self-supervision, and what that method can do.

    Attributes:
        adapts_by: What a candidate may be adapted by: 'coda', with pairs of one treatment; 'oda', with single images.
            Empty for a method that cannot adapt.
        takes_hooks: Whether adaptation's options (trainable subset, regularizers, early stopping, kept optimizer) hold.
    """

    adapts_by: ClassVar[frozenset[Method]] = frozenset({"coda", "oda"})
    takes_hooks: ClassVar[bool] = True


class Dino(MethodSection):
    """DINO head and loss of a line of models (paper section 4); fixed when its source is pretrained."""

    prototypes: Count
    hidden_dim: Count
    bottleneck_dim: Count
    batch_norm: bool = Field(description="BatchNorm in the head; needed when training from random weights.")
    student_temperature: Positive
    centre_momentum: Share


class Dinov2(MethodSection):
    """What DINOv2 adds to DINO (Oquab et al., 2023); head and budgets are those of `dino`, `pretrain`, `adaptation`."""

    masked_share: Annotated[float, Field(gt=0, le=1)] = Field(description="Share of global views with hidden patches.")
    mask_ratio: tuple[Share, Share] = Field(description="Smallest and largest share of hidden patches in such a view.")
    patch_weight: Positive = Field(description="Weight of iBOT's loss of hidden patches.")
    koleo_weight: Annotated[float, Field(ge=0)] = Field(description="Weight of KoLeo, for each of both global views.")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.mask_ratio[0] > self.mask_ratio[1]:
            message = f"mask_ratio: {self.mask_ratio[0]} is above {self.mask_ratio[1]}; the smaller share comes first"
            raise ValueError(message)
        return self


class OptimizerConfig(Section):
    """How long and how fast to train; schedules run in iterations, epochs are converted."""

    epochs: Positive | None = Field(description="Passes over the anchors; exactly one of epochs and iterations.")
    iterations: Count | None
    batch_size: Count
    learning_rate: Positive
    learning_rate_end: Annotated[float, Field(ge=0)]
    warmup_epochs: Annotated[float, Field(ge=0)]
    weight_decay_start: Annotated[float, Field(ge=0)]
    weight_decay_end: Annotated[float, Field(ge=0)]
    clip_norm: Positive
    checkpoint_every: Count = Field(description="Iterations between checkpoints.")


class DinoOptimizerConfig(OptimizerConfig):
    """A run of DINO: also how its teacher goes from start to end."""

    teacher_temperature: Positive
    teacher_temperature_start: Positive
    teacher_temperature_warmup_epochs: Annotated[float, Field(ge=0)]
    ema_start: Share = Field(description="Momentum of the teacher at the start; it goes to 1 by a cosine.")
    freeze_last_layer_epochs: Annotated[float, Field(ge=0)]


class Pretrain(DinoOptimizerConfig):
    """Step 1: self-supervision on the source (paper section 3)."""

    keep_optimizer: bool = Field(description="Keep the optimizer's moments with the state, for adaptation to resume.")
    fields: Literal["all", "labelled"] = Field(
        description="Fields that are learned from: all, or those of compounds in the label table (as in the paper)."
    )


class Supervised(OptimizerConfig):
    """The supervised system: one network from end to end (paper section 4, the baseline)."""

    plateau_factor: Annotated[float, Field(gt=0, lt=1)]
    plateau_patience: Count = Field(description="Validations without improvement before the rate is divided.")


class Head(Section):
    """The frozen classifier: projector and transformer over all tokens (paper section 3, figure 2)."""

    depth: Count
    num_heads: Count
    budget: OptimizerConfig
    plateau_factor: Annotated[float, Field(gt=0, lt=1)]
    plateau_patience: Count
    random_crops: Count = Field(description="Random crops a field whose tokens are cached for training.")
    tokens_gib: Annotated[float, Field(ge=0)] = Field(
        description="Memory for tokens of labelled fields; what does not fit lies in a temporary file."
    )
    renew_crops: bool = Field(description="Draw new crops every epoch, which runs the extractor every epoch.")
    alignments: tuple[Literal["none", "standardise"], ...] = Field(
        min_length=1, description="One head is trained for each: on raw tokens, on tokens standardised per batch."
    )


class Anchor(Section):
    """What holds the student near the released extractor; a strength of 0 is off (docs/adaptation.md)."""

    weights: Annotated[float, Field(ge=0)] = Field(description="Strength of half the squared distance of the weights.")
    features: Annotated[float, Field(ge=0)] = Field(description="Strength of the distance of the tokens' moments.")


class Diversity(Section):
    """The frozen head's mean prediction against a class prior; a strength of 0 is off (docs/adaptation.md)."""

    strength: Annotated[float, Field(ge=0)]
    head: Literal["none", "standardise"] = Field(description="Alignment that the head was trained with.")
    prior: Literal["uniform", "compounds"] = Field(
        description="Expected share of each mechanism: all the same, or its share of the labelled compounds."
    )


class Stopping(Section):
    """Early stopping: evaluations of the teacher without labels, and when to stop (docs/adaptation.md)."""

    every: int = Field(ge=0, description="Iterations between evaluations; 0 never evaluates.")
    criterion: Literal["none", "marginal_entropy", "agreement"] = Field(description="Chooses the best evaluation.")
    alignment: Alignment = Field(
        description="What is done to the tokens; 'standardise' uses the head trained on such tokens."
    )
    patience: Count = Field(description="Evaluations without a better one before it stops.")


class Adaptation(Section):
    """Step 3: the extractor continues on unlabelled plates, from the source release (paper section 3, step 3)."""

    budget: DinoOptimizerConfig
    source_batch_size: Count | None = Field(
        description="Batch size where a whole source is adapted to (benchmarks), in place of the budget's."
    )
    fields: Literal["all", "labelled"] = Field(
        description="Fields that are learned from: all, or those of compounds that the release's labels know."
    )
    dino_head: Literal["trained", "prototypes_frozen", "frozen"] = Field(
        description="What of the DINO head learns: all, all but the prototypes, or nothing."
    )
    carry_centre: bool
    carry_optimizer: bool = Field(description="Start from the moments that pretraining kept (pretrain.keep_optimizer).")
    trainable: Literal["all", "first_blocks", "last_blocks", "norms", "low_rank"] = Field(
        description="Which weights of the student learn."
    )
    trainable_blocks: Count = Field(description="Blocks that learn with first_blocks and last_blocks.")
    low_rank_rank: Count = Field(description="Rank of the change of each matrix with low_rank.")
    low_rank_scale: Positive = Field(description="Factor of that change.")
    anchor: Anchor
    diversity: Diversity
    stopping: Stopping
    min_pairable_share: Share = Field(description="Below it, ODA replaces CODA.")
    archive_batches: int = Field(ge=0, description="Earlier accepted batches of the source to pair with.")
    archive_fields: int = Field(
        default=20_000,  # parameters of before it was one are read
        ge=0,
        description="Archived fields read at most: whole wells, those of treatments that the batch has first.",
    )
    candidates: tuple[str, ...] = Field(min_length=1, description="Ways of serving that are tried.")


class Mae(MethodSection):
    """Masked autoencoder: Dual-model-MAE on the source, ODA-MAE on a target (paper section 4, after He et al.)."""

    adapts_by: ClassVar[frozenset[Method]] = frozenset({"oda"})
    takes_hooks: ClassVar[bool] = False

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(description="Share of patches hidden from the encoder.")
    decoder_width: Count = Field(description="Length of the decoder's tokens; a multiple of 4 and of decoder_heads.")
    decoder_depth: Count
    decoder_heads: Count
    norm_pixels: bool = Field(description="Reconstruct each patch by its own mean and deviation.")
    beta2: Annotated[float, Field(gt=0, lt=1)] = Field(description="AdamW's second moment.")
    pretrain: OptimizerConfig = Field(description="Dual-model-MAE, on the source.")
    adaptation: OptimizerConfig = Field(description="ODA-MAE, on the target.")


class Ttt(Section):
    """Test-time training: a few MAE steps on copies of one image, before it alone is predicted (paper section 4)."""

    steps: Count = Field(description="Optimizer steps an image.")
    copies: Count = Field(description="Copies of an image in a step, each with its own mask.")
    learning_rate: Positive = Field(description="Constant.")
    momentum: Annotated[float, Field(ge=0, lt=1)]
    flips: bool = Field(description="Turn each copy at random, as crops.flips and crops.rotations say.")
    checkpoint_every: Count = Field(description="Images between checkpoints.")


class Gate(Section):
    """What the gate decides by (docs/gate.md): numbers only, no labels."""

    policy: GatePolicy = Field(description="In the file: a name in coda/config/policies, or the path of a .yaml file.")
    bootstrap: Count = Field(description="Bootstrap samples over treatments.")


class Predict(Section):
    """When a prediction is given with a reason not to rely on it."""

    min_top_over_chance: Positive = Field(
        description="Smallest top probability that counts as an answer, in multiples of 1/classes (for few "
        "classes by odds)."
    )


class Compute(Section):
    """Where and how the arithmetic runs; no influence on what is learned beyond rounding."""

    device: Literal["auto", "cpu", "cuda"]
    threads: int = Field(ge=0, description="CPU threads; 0 leaves torch's choice.")
    precision: Literal["auto", "float32", "bfloat16"]
    attention: Literal["auto", "explicit", "sdpa"]
    compile: bool = Field(description="Compile the DINO step with torch.compile: a minute at the start, for long runs.")
    images: Literal["auto", "device", "host", "stored"] = Field(
        description="Where images live in training: on the device, in host memory, or in their plate stores."
    )
    processes: int = Field(
        ge=0, description="Processes of a machine that train together; 0 is one for each GPU, at least one."
    )
    nodes: int = Field(
        default=1,
        ge=1,
        description="Machines that pretrain together, in a TrainJob of Kubeflow Trainer 2; 1 is this one.",
    )


class Params(Section):
    """All of params.yaml."""

    seed: int = Field(ge=0)
    ingest: Ingest
    quality: Quality
    extractor: Extractor
    crops: Crops
    pairs: Pairs
    split: Split
    alignment: TokenGroups
    ssl: Ssl = Field(default=Ssl(method="dino"))  # parameters of before there was a choice are read
    dino: Dino
    dinov2: Dinov2 = Field(  # parameters of before it was there are read
        default=Dinov2(masked_share=0.5, mask_ratio=(0.1, 0.5), patch_weight=1.0, koleo_weight=0.1)
    )
    pretrain: Pretrain
    head: Head
    adaptation: Adaptation
    mae: Mae
    ttt: Ttt
    supervised: Supervised
    gate: Gate
    predict: Predict
    compute: Compute

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Read parameters that were written down, by this version or an earlier one (`coda.config.moved`)."""
        try:
            values = json.loads(json_data)
        except ValueError:
            values = None  # what is wrong with it is told below
        if isinstance(values, dict):
            json_data = json.dumps(completed(values))
        return super().model_validate_json(json_data, **options)
