"""Features of frozen encoders, computed once per image and read from disk in later epochs and runs.

Only outputs before the first trained layer are kept: the vision encoder's output before the projector, and SAM 2's
pyramid before `conv_s0` and `conv_s1`, which belong to the mask decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from deixis.atomic_files import file_aside
from deixis.batch_records import Grid, ReferBatch
from deixis.errors import OptionError, TrainingError
from deixis.file_modes import give_user_mode
from deixis.models.sa2va import Sa2vaBundle, SamLevels, shown_tiles

LEVELS = ("fine", "middle", "coarse")
Features = dict[str, Tensor]  # of one image: "vision" [tiles tile_tokens channels] and the three levels


class FrozenFeatures:
    """The features of the images in a batch, from a folder with one file per image.

    Every image is encoded by itself, whatever batch it is in. So results do not depend on what the folder already
    holds, and equal those without a cache up to the rounding differences of other batch sizes; with one image per
    batch, bit for bit. Files hold the encoders' outputs without further rounding. Images that do not fit within
    `max_bytes` are encoded every time, and so are the close-ups of regions, which differ in every epoch.

    Args:
        folder: for these encoders in this precision only.
        max_bytes: limit for all files in it together.

    Raises:
        OptionError: an encoder is trained, so its features change.
        TrainingError: the folder cannot be created.
    """

    def __init__(self, bundle: Sa2vaBundle, folder: Path, max_bytes: int, *, accelerator: Accelerator) -> None:
        self.bundle, self.folder, self.accelerator = bundle, folder, accelerator
        for name, module in encoders(bundle).items():
            if any(parameter.requires_grad for parameter in module.parameters()):
                raise OptionError(
                    f"--cache-features: the {name} is trained, so its features change with every step; "
                    "remove it from --train, or remove --cache-features"
                )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        except OSError as error:
            raise TrainingError(f"{folder}: cannot be used for features ({error}); choose another folder") from error
        self.bytes_left = (max_bytes - kept) // accelerator.num_processes  # each process counts what it writes itself

    def of(self, batch: ReferBatch) -> tuple[Float[Tensor, "tiles tile_tokens channels"], SamLevels]:
        """(vision, sam) of a batch, as `Sa2va.forward` expects them.

        Raises:
            TrainingError: a file cannot be written.
        """
        # [tiles of all images, 3, tile, tile] -> one [tiles, 3, tile, tile] per image, its close-ups last
        tiles = torch.split(batch.tiles_u8, list(batch.tiles_per_image))
        shown = shown_tiles(batch.tiles_per_image, batch.regions)
        # one [frames, 3, side, side] per image; no frame where no mask is asked for
        frames = torch.split(batch.sam_pixels_u8, list(batch.frames_per_image) or 1)
        grids = batch.grids or ((),) * len(batch)
        images = zip(batch.keys, tiles, shown, frames, grids, strict=True)
        found = [self._features_of(key, seen[:count], sam, grid) for key, seen, count, sam, grid in images]
        vision = []
        for features, seen, count in zip(found, tiles, shown, strict=True):
            vision += [features["vision"]] if len(seen) == count else [features["vision"], self._vision(seen[count:])]
        asked = [features for features, pictures in zip(found, frames, strict=True) if len(pictures)]
        if not asked:
            return torch.cat(vision), self._levels(batch.sam_pixels_u8)
        # each level: [1 or frames, c, h, w] per image -> [frames of all images, c, h, w]
        fine, middle, coarse = (torch.cat([features[level] for features in asked]) for level in LEVELS)
        return torch.cat(vision), (fine, middle, coarse)

    def encode(
        self,
        tiles_u8: UInt8[Tensor, "tiles 3 tile tile"],
        sam_u8: UInt8[Tensor, "frames 3 side side"],
        grids: tuple[Grid, ...] = (),
    ) -> Features:
        """Features of one image, or of a clip's frames, in the run's precision; no frames give no levels."""
        levels = dict(zip(LEVELS, self._levels(sam_u8), strict=True)) if len(sam_u8) else {}
        return {"vision": self._vision(tiles_u8, grids), **levels}

    def _levels(self, sam_u8: UInt8[Tensor, "frames 3 side side"]) -> SamLevels:
        with torch.no_grad(), self.accelerator.autocast(), _in_eval_mode(encoders(self.bundle)["SAM 2 encoder"]):
            return self.bundle.model.sam_features(self.bundle.normalise_sam(sam_u8))

    def _vision(
        self, tiles_u8: UInt8[Tensor, "tiles 3 tile tile"], grids: tuple[Grid, ...] = ()
    ) -> Float[Tensor, "tiles tile_tokens channels"]:
        with torch.no_grad(), self.accelerator.autocast(), _in_eval_mode(encoders(self.bundle)["vision encoder"]):
            return self.bundle.model.vision_features(self.bundle.normalise_tiles(tiles_u8), grids)

    def _features_of(self, key: str, tiles_u8: Tensor, sam_u8: Tensor, grids: tuple[Grid, ...]) -> Features:
        """The features of one image. Without SAM pixels (no mask is asked for) only `vision` is read or written."""
        path, there = self.folder / f"{key}.safetensors", 0
        wanted = {"vision", *LEVELS} if len(sam_u8) else {"vision"}
        features: Features = {}
        try:
            features = _read(path, wanted, str(self.accelerator.device))
            if features.keys() == wanted:
                return features
            there = path.stat().st_size
        except FileNotFoundError:
            pass
        except SafetensorError:  # for example truncated by a full disk
            path.unlink(missing_ok=True)
        if "vision" in features:
            features |= zip(LEVELS, self._levels(sam_u8), strict=True)
        else:
            features = self.encode(tiles_u8, sam_u8, grids)
        # a file that only lacked the levels is written anew: what it held counts once
        more = sum(tensor.nbytes for tensor in features.values()) - there
        if more <= self.bytes_left:
            self.bytes_left -= more
            self._write(path, features)
        return features

    def _write(self, path: Path, features: Features) -> None:
        """Write a complete file, then rename it: another process or run may be reading."""
        try:
            with file_aside(path) as draft:
                save_file(_packed(features), draft)
                give_user_mode(draft)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path}: cannot be written ({error}); lower --cache-gib, then --resume") from error


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode, without dropout; afterwards in its previous mode."""
    mode = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(mode)


def _packed(features: Features) -> dict[str, Tensor]:
    """Tensors in memory order, with the axes' order in the name: a convolution's rounding depends on its input's
    memory layout."""
    packed = {}
    for name, tensor in features.items():
        order = sorted(range(tensor.ndim), key=tensor.stride().__getitem__, reverse=True)  # outermost axis first
        packed[f"{name} {''.join(map(str, order))}"] = tensor.permute(order).contiguous()
    return packed


def _read(path: Path, wanted: Set[str], device: str) -> Features:
    """The wanted features that a file written from `_packed` has."""
    features = {}
    with safe_open(path, framework="pt", device=device) as file:
        for label in file.keys():  # noqa: SIM118 (not a dictionary)
            name, order = label.split()
            if name in wanted:
                tensor = file.get_tensor(label)
                # the inverse permutation: the axes as they were, on the same memory
                features[name] = tensor.permute([order.index(str(axis)) for axis in range(tensor.ndim)])
    return features


def encoders(bundle: Sa2vaBundle) -> dict[str, nn.Module]:
    """The modules whose features are cached, by their names in messages."""
    model = bundle.model
    return {
        "vision encoder": model.vlm.get_submodule(model.family.vision_module),
        "SAM 2 encoder": model.sam.vision_encoder,
    }


def feature_bytes(
    encode: Callable[[Tensor, Tensor, tuple[Grid, ...]], Features], bundle: Sa2vaBundle
) -> tuple[int, int]:
    """(bytes per image, bytes per tile) of the features, measured by encoding a black image."""
    device = next(bundle.model.parameters()).device
    tiles = torch.zeros((1, 3, bundle.tile_px, bundle.tile_px), dtype=torch.uint8, device=device)
    sam = torch.zeros((1, 3, bundle.sam_px, bundle.sam_px), dtype=torch.uint8, device=device)
    features = encode(tiles, sam, ((1, 1),) if bundle.blocks else ())  # one block is a grid of 1 x 1
    return sum(features[level].nbytes for level in LEVELS), features["vision"].nbytes
