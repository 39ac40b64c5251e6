"""Resizing, scaling and normalising of PIL pictures, as torchvision does it by default."""

import numpy as np
import torch
from PIL import Image


def resize(picture, size_hw):
    return picture.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)


def to_tensor(picture):
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def normalize(pixels, mean, std):
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
