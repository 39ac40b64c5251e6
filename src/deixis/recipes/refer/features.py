"""Where a segmenter run keeps the features of its frozen encoders, and how much room they take."""

from __future__ import annotations

import hashlib
import shutil

import torch
from accelerate import Accelerator

from deixis.errors import OptionError
from deixis.models.sa2va import Sa2vaBundle
from deixis.options.refer_train import ReferHardware
from deixis.recipes.refer.check import tile_counter
from deixis.recipes.run.outputs import weights_digest
from deixis.recipes.run.training import Start
from deixis.refer_records import ReferDataset
from deixis.training.tasks.frozen_features import FrozenFeatures, encoders, feature_bytes

GIB = 2**30


def frozen_features(
    hardware: ReferHardware, bundle: Sa2vaBundle, training: ReferDataset, *, max_tiles: int, start: Start
) -> FrozenFeatures | None:
    """The cache of `--cache-features`, its size announced; None without.

    Raises:
        OptionError: an encoder trains, or the disk has no room for what would be kept.
        TrainingError: the folder cannot be used.
    """
    if hardware.cache_features is None:
        return None
    accelerator = start.accelerator
    bundle.model.to(accelerator.device)
    most = int(hardware.cache_gib * GIB)
    folder = hardware.cache_features / encoders_digest(bundle, accelerator)
    cache = FrozenFeatures(bundle, folder, most, accelerator=accelerator)
    of_image, of_tile = feature_bytes(cache.encode, bundle)
    tiles = tile_counter(bundle.cutter, max_tiles)
    wanted = sum(of_image + of_tile * tiles(training[index].size_hw) for index in range(len(training)))
    kept = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    free = shutil.disk_usage(folder).free
    start.console.print(
        f"features    {wanted / GIB:.2f} GiB for {len(training):,} images in {folder}, of which at most "
        f"{hardware.cache_gib:g} GiB are kept; {kept / GIB:.2f} GiB are there, {free / GIB:.1f} GiB are free",
        markup=False,
    )
    if min(wanted, most) - kept > free:
        raise OptionError(
            f"--cache-features: {folder} has {free / GIB:.1f} GiB free, the features take "
            f"{min(wanted, most) / GIB:.1f} GiB; choose a folder on another disk, or lower --cache-gib"
        )
    return cache


def encoders_digest(bundle: Sa2vaBundle, accelerator: Accelerator) -> str:
    """A name for what these encoders give: other weights, another precision, device or torch give other features."""
    parts = [weights_digest(module) for module in encoders(bundle).values()]
    means = (bundle.tile_mean, bundle.tile_std, bundle.tile_px, bundle.sam_px)
    said = (*parts, *means, accelerator.mixed_precision, accelerator.device.type, torch.__version__)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:12]
