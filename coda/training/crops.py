"""Multi-crop views of a batch of pairs, cut and augmented together (paper section 4).

Order and provenance: crop 0 is a global view of image A, crop 1 a global view of image B, then the local views of A,
then those of B. Images stay uint8 until a crop is cut; no image is touched one by one except for the cut itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from coda.config.params import Crops
from coda.errors import ConfigError, Problem


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
    """Cuts views from uint8 images that lie on the device."""

    def __init__(self, images: Tensor, crops: Crops) -> None:
        """Keep the images and check that views fit.

        Args:
            images: uint8, shape (fields, channels, height, width).
            crops: Sizes and augmentation.

        Raises:
            ConfigError: A view is larger than the images.
        """
        height, width = images.shape[-2:]
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
        self._moments: tuple[Tensor, Tensor] | None = None

    def views(self, anchors: Tensor, partners: Tensor, source: torch.Generator) -> Views:
        """Return the augmented views of pairs.

        Args:
            anchors: Rows of image A, shape (batch,), on the CPU.
            partners: Rows of image B; the anchors themselves for plain DINO.
            source: Generator on the CPU for places, flips and intensities.
        """
        k = self.crops.locals_per_image
        globals_ = self.random_crops(torch.cat([anchors, partners]), self.crops.global_size, source, jitter=True)
        rows = torch.cat([anchors.repeat(k), partners.repeat(k)])
        return Views(globals_, self.random_crops(rows, self.crops.local_size, source, jitter=False))

    def random_crops(self, rows: Tensor, size: int, source: torch.Generator, *, jitter: bool) -> Tensor:
        """Return one random crop of each row, flipped, optionally jittered, standardised.

        Args:
            rows: Shape (crops,).
            size: Side in pixels.
            source: Generator on the CPU.
            jitter: Whether intensities are changed (global views and head training only).

        Returns:
            Float32, shape (crops, channels, size, size).
        """
        count = len(rows)
        places = torch.rand((2, count), generator=source)
        tops = self.corner[0] + (places[0] * (self.side[0] - size + 1)).long()
        lefts = self.corner[1] + (places[1] * (self.side[1] - size + 1)).long()
        cut = self._turn(cut_crops(self.images, rows, tops, lefts, size), source)
        crops = cut.float().div_(255)
        if jitter and self.crops.intensity_probability > 0:
            self._jitter(crops, source)
        return self.standardised(crops, rows)

    def grid_crops(self, rows: Tensor) -> Tensor:
        """Return the evaluation crops: a grid of global views around the centre; one centre crop for a grid of 1.

        Returns:
            Float32, shape (rows, grid * grid, channels, global_size, global_size).
        """
        size, grid = self.crops.global_size, self.crops.eval_grid
        tops = [self.corner[0] + place for place in _grid_places(self.side[0], size, grid)]
        lefts = [self.corner[1] + place for place in _grid_places(self.side[1], size, grid)]
        on_device = rows.to(self.images.device)
        cut = [self.images[on_device, :, top : top + size, left : left + size] for top in tops for left in lefts]
        stacked = torch.stack(cut, dim=1)
        flat = stacked.flatten(0, 1).float().div_(255)
        return self.standardised(flat, rows.repeat_interleave(grid * grid)).view(stacked.shape)

    def standardised(self, crops: Tensor, rows: Tensor) -> Tensor:
        """Give every channel of every crop mean 0 and (unbiased) deviation 1, by its own or its image's moments.

        Args:
            crops: Float in 0..1, shape (crops, channels, side, side); changed in place.
            rows: Image that each crop was cut from, shape (crops,).
        """
        if self.crops.normalise == "image":
            mean, sd = self._image_moments(rows)
        else:
            sd, mean = torch.std_mean(crops, dim=(-2, -1), keepdim=True)
        return crops.sub_(mean).div_(sd + 1e-6)

    def _image_moments(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self._moments is None:
            top, left = self.corner
            inner = self.images[:, :, top : top + self.side[0], left : left + self.side[1]]
            parts = [inner[start : start + 256] for start in range(0, len(inner), 256)]
            moments = [torch.std_mean(part.float() / 255, dim=(-2, -1), keepdim=True) for part in parts]
            self._moments = torch.cat([m[1] for m in moments]), torch.cat([m[0] for m in moments])
        on_device = rows.to(self.images.device)
        return self._moments[0][on_device], self._moments[1][on_device]

    def _turn(self, crops: Tensor, source: torch.Generator) -> Tensor:
        # transposing and two flips make all eight symmetries of the square; turns alone are four of them
        coins = torch.rand((3, len(crops)), generator=source) < 0.5
        transpose, vertical, horizontal = coins
        if self.crops.rotations and not self.crops.flips:
            horizontal = transpose ^ vertical
        elif not self.crops.rotations:
            transpose = torch.zeros_like(transpose)
            if not self.crops.flips:
                return crops
        for chosen, turn in ((transpose, _transposed), (vertical, _upside_down), (horizontal, _mirrored)):
            where = chosen.nonzero().flatten().to(crops.device)
            crops[where] = turn(crops[where])
        return crops

    def _jitter(self, crops: Tensor, source: torch.Generator) -> None:
        chosen = (torch.rand(len(crops), generator=source) < self.crops.intensity_probability).nonzero().flatten()
        shape = (2, len(chosen), crops.shape[1], 1, 1)
        noise = torch.randn(shape, generator=source).to(crops.device)
        where = chosen.to(crops.device)
        changed = (crops[where] + noise[0] * self.crops.brightness_sd).clamp_(0, 1)
        if self.crops.gamma_sd > 0:
            # the exponent stays within one deviation of 1, as in the released code
            changed = changed.pow_(1 + noise[1].clamp(-1, 1) * self.crops.gamma_sd).clamp_(0, 1)
        crops[where] = changed


def cut_crops(images: Tensor, rows: Tensor, tops: Tensor, lefts: Tensor, size: int) -> Tensor:
    """Cut one square from each row.

    Args:
        images: Shape (fields, channels, height, width).
        rows: Shape (crops,), on the CPU, as are the corners.
        tops: First row of pixels of each crop.
        lefts: First column of pixels of each crop.
        size: Side in pixels.

    Returns:
        Shape (crops, channels, size, size), of the images' type.
    """
    if images.device.type == "cpu":
        # views and one copy are several times faster here than gathering by index (measured)
        corners = zip(rows.tolist(), tops.tolist(), lefts.tolist(), strict=True)
        return torch.stack([images[row, :, top : top + size, left : left + size] for row, top, left in corners])
    device, span = images.device, torch.arange(size, device=images.device)
    ys = (tops.to(device)[:, None] + span)[:, None, :, None]
    xs = (lefts.to(device)[:, None] + span)[:, None, None, :]
    channels = torch.arange(images.shape[1], device=device)[None, :, None, None]
    return images[rows.to(device)[:, None, None, None], channels, ys, xs]


def _grid_places(side: int, size: int, grid: int) -> list[int]:
    """Corners of `grid` crops along a side, evenly spread and centred; 1 is the centre crop."""
    room = side - size
    if grid == 1:
        return [room // 2]
    step = min(size, room / (grid - 1))
    first = (room - step * (grid - 1)) / 2
    return [round(first + step * number) for number in range(grid)]


def _transposed(crops: Tensor) -> Tensor:
    return crops.transpose(-2, -1)


def _upside_down(crops: Tensor) -> Tensor:
    return crops.flip(-2)


def _mirrored(crops: Tensor) -> Tensor:
    return crops.flip(-1)
