"""Multi-crop views of a batch of pairs, cut and augmented together (paper section 4).

Order and provenance: crop 0 is a global view of image A, crop 1 a global view of image B, then the local views of A,
then those of B. Images stay uint8 until a crop is cut; no image is touched one by one except for the cut itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from coda.config.params import Crops
from coda.errors import ConfigError, Problem
from coda.training.images import ImageSource, MemoryImages

TURNS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda crops: crops.transpose(-2, -1), lambda crops: crops.flip(-2), lambda crops: crops.flip(-1),
)  # fmt: skip
"""Transposed, upside down, mirrored."""


@dataclass(frozen=True)
class Views:
    """Crops of one batch, standardised, float32.

    Attributes:
        globals_: Shape (2 * batch, channels, global_size, global_size): crop 0 of every pair, then crop 1.
        locals_: Shape (2 * k * batch, channels, local_size, local_size): k crops of A, then k of B, crop by crop.
    """

    globals_: Tensor
    locals_: Tensor


class Cropper:
    """Cuts views from uint8 images, wherever these lie."""

    def __init__(self, images: Tensor | ImageSource, crops: Crops) -> None:
        """Keep the images and check that views fit.

        Args:
            images: uint8, shape (fields, channels, height, width); or where such images are cut from.
            crops: Sizes and augmentation.

        Raises:
            ConfigError: A view is larger than the images.
        """
        images = MemoryImages(images) if isinstance(images, Tensor) else images
        fields, channels, height, width = images.shape
        largest = max(crops.global_size, crops.local_size)
        if largest > min(height, width):
            problem = Problem(
                "crops.global_size",
                f"{largest} px for images of {height} x {width} px",
                "views that fit into the stored images",
                "Lower crops.global_size and crops.local_size, or raise ingest.scaling_factor.",
            )
            raise ConfigError("The views do not fit into the images.", [problem])
        self.images = images
        self.crops = crops
        side = (min(crops.centre, height), min(crops.centre, width))
        self.corner = ((height - side[0]) // 2, (width - side[1]) // 2)
        self.side = side
        # mean and standard deviation of each image, computed when it is first cut from
        self._moments = torch.full((2, fields, channels, 1, 1), float("nan"), device=images.device)

    def views(self, anchors: Tensor, partners: Tensor, source: torch.Generator, part: slice | None = None) -> Views:
        """Return the augmented views of pairs.

        Args:
            anchors: Rows of image A, shape (batch,), on the CPU.
            partners: Rows of image B; the anchors themselves for plain DINO.
            source: Generator on the CPU for places, flips and intensities.
            part: Pairs whose views are cut; all when not given. The numbers are drawn for all pairs in any case, so
                that several processes cut together what one would.
        """
        k, crops = self.crops.locals_per_image, self.crops
        both = torch.cat([anchors, partners])
        globals_ = self.random_crops(both, crops.global_size, source, jitter=True, keep=_keep(2, len(anchors), part))
        rows = torch.cat([anchors.repeat(k), partners.repeat(k)])
        keep = _keep(2 * k, len(anchors), part)
        return Views(globals_, self.random_crops(rows, crops.local_size, source, jitter=False, keep=keep))

    def random_crops(
        self, rows: Tensor, size: int, source: torch.Generator, *, jitter: bool, keep: Tensor | None = None
    ) -> Tensor:
        """Return one random crop of each row, flipped, optionally jittered, standardised.

        Args:
            rows: Shape (crops,).
            size: Side in pixels.
            source: Generator on the CPU.
            jitter: Whether intensities are changed (global views and head training only).
            keep: Places in `rows` that are cut, in rising order; all when not given. Numbers are drawn for all rows.

        Returns:
            Float32, shape (crops, channels, size, size).
        """
        return self.drawn(rows, size, source, jitter=jitter, keep=keep)()

    def drawn(
        self, rows: Tensor, size: int, source: torch.Generator, *, jitter: bool, keep: Tensor | None = None
    ) -> Callable[[], Tensor]:
        """Draw the numbers of `random_crops` now, and return what cuts the crops when it is called."""
        chance = _draw(len(rows), self.images.shape[1], source, self.crops, jitter=jitter)
        if keep is not None:
            rows, chance = rows[keep], chance.at(keep)
        return partial(self._random_crops, rows, size, chance)

    def _random_crops(self, rows: Tensor, size: int, chance: "_Chance") -> Tensor:
        if not len(rows):
            return torch.empty((0, self.images.shape[1], size, size), device=self.images.device)
        tops = self.corner[0] + (chance.places[0] * (self.side[0] - size + 1)).long()
        lefts = self.corner[1] + (chance.places[1] * (self.side[1] - size + 1)).long()
        cut = _turned(self.images.cut(rows, tops, lefts, size), chance.turns)
        crops = cut.float().div_(255)
        if chance.noise is not None:
            self._jitter(crops, chance.jittered, chance.noise)
        return self.standardised(crops, rows)

    def grid_crops(self, rows: Tensor) -> Tensor:
        """Return the evaluation crops: a grid of global views around the centre; one centre crop for a grid of 1.

        Returns:
            Float32, shape (rows, grid * grid, channels, global_size, global_size).
        """
        size, grid = self.crops.global_size, self.crops.eval_grid
        tops = [self.corner[0] + place for place in _grid_places(self.side[0], size, grid)]
        lefts = [self.corner[1] + place for place in _grid_places(self.side[1], size, grid)]
        cut = [
            self.images.cut(rows, torch.full_like(rows, top), torch.full_like(rows, left), size)
            for top in tops
            for left in lefts
        ]
        stacked = torch.stack(cut, dim=1)
        flat = stacked.flatten(0, 1).float().div_(255)
        return self.standardised(flat, rows.repeat_interleave(grid * grid)).view(stacked.shape)

    def standardised(self, crops: Tensor, rows: Tensor) -> Tensor:
        """Give every channel of every crop mean 0 and (unbiased) standard deviation 1, by its own or its image's.

        Args:
            crops: Float in 0..1, shape (crops, channels, side, side); changed in place.
            rows: Image that each crop was cut from, shape (crops,).
        """
        if self.crops.normalise == "image":
            mean, sd = self._image_moments(rows)
            return crops.sub_(mean).div_(sd + 1e-6)
        return _by_own_moments(crops)

    def _image_moments(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        known = self._moments
        on_device = rows.to(known.device)
        missing = torch.unique(rows[known[0, on_device, 0, 0, 0].isnan().cpu()])
        top, left = self.corner
        for start in range(0, len(missing), 256):
            part = missing[start : start + 256]
            inner = self.images.whole(part)[:, :, top : top + self.side[0], left : left + self.side[1]]
            sd, mean = torch.std_mean(inner.float() / 255, dim=(-2, -1), keepdim=True)
            known[:, part.to(known.device)] = torch.stack([mean, sd])
        return known[0, on_device], known[1, on_device]

    def _jitter(self, crops: Tensor, jittered: Tensor, noise: Tensor) -> None:
        where, noise = jittered.nonzero().flatten().to(crops.device), noise.to(crops.device)
        changed = (crops[where] + noise[0] * self.crops.brightness_sd).clamp_(0, 1)
        if self.crops.gamma_sd > 0:
            # the exponent stays within one standard deviation of 1, as in the released code
            changed = changed.pow_(1 + noise[1].clamp(-1, 1) * self.crops.gamma_sd).clamp_(0, 1)
        crops[where] = changed


@dataclass(frozen=True)
class _Chance:
    """What chance decides about crops: places (2, crops), three turns (3, crops), which are jittered, and by what."""

    places: Tensor
    turns: Tensor
    jittered: Tensor
    noise: Tensor | None

    def at(self, keep: Tensor) -> "_Chance":
        """Return what was decided about some of the crops."""
        noise = self.noise
        if noise is not None:
            # noise is drawn for the jittered crops alone, in their order
            wanted = torch.zeros_like(self.jittered)
            wanted[keep] = True
            noise = noise[:, wanted[self.jittered]]
        return _Chance(self.places[:, keep], self.turns[:, keep], self.jittered[keep], noise)


def _draw(count: int, channels: int, source: torch.Generator, crops: Crops, *, jitter: bool) -> _Chance:
    places = torch.rand((2, count), generator=source)
    coins = torch.rand((3, count), generator=source) < 0.5
    if not (jitter and crops.intensity_probability > 0):
        return _Chance(places, _turns(coins, crops), torch.zeros(count, dtype=torch.bool), None)
    jittered = torch.rand(count, generator=source) < crops.intensity_probability
    noise = torch.randn((2, int(jittered.sum()), channels, 1, 1), generator=source)
    return _Chance(places, _turns(coins, crops), jittered, noise)


def _turns(coins: Tensor, crops: Crops) -> Tensor:
    """Return which crops are transposed, turned upside down and mirrored, from three coins each."""
    # transposing and two flips make all eight symmetries of the square; turns alone are four of them
    transpose, vertical, horizontal = coins
    nothing = torch.zeros_like(transpose)
    if crops.rotations:
        return torch.stack([transpose, vertical, horizontal if crops.flips else transpose ^ vertical])
    return torch.stack([nothing, vertical, horizontal] if crops.flips else [nothing, nothing, nothing])


def _turned(crops: Tensor, turns: Tensor) -> Tensor:
    for chosen, turn in zip(turns, TURNS, strict=True):
        where = chosen.nonzero().flatten().to(crops.device)
        if len(where):
            crops[where] = turn(crops[where])
    return crops


def turned_at_random(images: Tensor, crops: Crops, source: torch.Generator) -> Tensor:
    """Turn each image at random, as ``crops.flips`` and ``crops.rotations`` say; changed in place and returned.

    Args:
        images: Square, shape (count, channels, side, side).
        crops: Which turns there are.
        source: Generator on the CPU.
    """
    return _turned(images, _turns(torch.rand((3, len(images)), generator=source) < 0.5, crops))


def standardised_crops(pixels: Tensor) -> Tensor:
    """Return stored pixels as a network sees them where each crop is standardised by its own moments.

    Args:
        pixels: uint8, shape (crops, channels, side, side).

    Returns:
        Float32 of the same shape.
    """
    return _by_own_moments(pixels.float().div_(255))


def _by_own_moments(crops: Tensor) -> Tensor:
    """Give every channel of every crop mean 0 and (unbiased) standard deviation 1; changed in place and returned."""
    # in two steps: torch.std_mean is an order of magnitude slower on a CPU (decision 0012)
    crops.sub_(crops.mean(dim=(-2, -1), keepdim=True))
    norm = torch.linalg.vector_norm(crops, dim=(-2, -1), keepdim=True)
    return crops.div_(norm / (crops.shape[-2] * crops.shape[-1] - 1) ** 0.5 + 1e-6)


def _keep(crops: int, batch: int, part: slice | None) -> Tensor | None:
    """Return the places of a part of the pairs among `crops` crops of every pair, crop by crop."""
    if part is None:
        return None
    return (torch.arange(crops)[:, None] * batch + torch.arange(batch)[part]).flatten()


def _grid_places(side: int, size: int, grid: int) -> list[int]:
    """Corners of `grid` crops along a side, evenly spread and centred; 1 is the centre crop."""
    room = side - size
    if grid == 1:
        return [room // 2]
    step = min(size, room / (grid - 1))
    first = (room - step * (grid - 1)) / 2
    return [round(first + step * number) for number in range(grid)]
