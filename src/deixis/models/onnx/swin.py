"""Swin Transformer (arXiv 2103.14030) without branches that depend on the image's size.

transformers' implementation checks in many places whether padding is needed, and an exported graph keeps the answer for
the image it was exported with. Here everything is padded by the amount it needs, which may be zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.activations import ACT2FN

from deixis.errors import ModelError
from deixis.models.grounding_dino.weights.transformers_layout import BACKBONE, Ties, file_name

OTHER_REGION = -100.0  # added to attention between parts of a shifted window that are not neighbours in the image


class SwinGraph(nn.Module):
    """The backbone's maps from pixels, with a detector's weights."""

    def __init__(self, config: Any, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        if config.model_type != "swin" or config.use_absolute_embeddings:
            raise ModelError(f"the backbone {config.model_type!r} cannot be exported; only Swin can")
        weights = {file_name(n, Ties(True, True)): tensor for n, tensor in state.items() if n.startswith(BACKBONE)}
        weights = {name.removeprefix(BACKBONE): tensor for name, tensor in weights.items()}
        self.patch = int(config.patch_size)
        self.projection = nn.Conv2d(3, config.embed_dim, self.patch, stride=self.patch)
        _fill(self.projection, weights, "embeddings.patch_embeddings.projection")
        self.norm = _norm(weights, "embeddings.norm", 1e-5)
        stages = range(len(config.depths))
        self.stages = nn.ModuleList(nn.Sequential(*_blocks(weights, stage, config)) for stage in stages)
        self.merges = nn.ModuleList(Merge(weights, f"encoder.layers.{stage}.downsample.") for stage in stages[:-1])
        self.out = [int(name.removeprefix("stage")) - 1 for name in config.out_features]
        self.norms = nn.ModuleList(_norm(weights, f"hidden_states_norms.stage{stage + 1}", 1e-5) for stage in self.out)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """One map (batch, channels, height, width) per level, finest first."""
        # [B, 3, H, W] -> [B, H / patch, W / patch, C]
        grid = self.projection(padded(pixels, self.patch, self.patch)).permute(0, 2, 3, 1)
        grid = self.norm(grid)
        maps = []
        for stage, blocks in enumerate(self.stages):
            if stage:
                grid = self.merges[stage - 1](grid)
            grid = blocks(grid)
            if stage in self.out:
                # [B, h, w, C] -> [B, C, h, w]
                maps.append(self.norms[self.out.index(stage)](grid).permute(0, 3, 1, 2))
        return maps


class Block(nn.Module):
    """Attention inside windows, in every second block shifted by half a window, then a feed-forward (section 3.2)."""

    def __init__(self, weights: Mapping[str, Tensor], start: str, heads: int, *, index: int, config: Any) -> None:
        super().__init__()
        self.heads, self.window = heads, int(config.window_size)
        self.shift = self.window // 2 if index % 2 else 0
        self.norm_before = _norm(weights, start + "layernorm_before", config.layer_norm_eps)
        self.norm_after = _norm(weights, start + "layernorm_after", config.layer_norm_eps)
        self.query = _linear(weights, start + "attention.self.query")
        self.key = _linear(weights, start + "attention.self.key")
        self.value = _linear(weights, start + "attention.self.value")
        self.out = _linear(weights, start + "attention.output.dense")
        self.widen = _linear(weights, start + "intermediate.dense")
        self.narrow = _linear(weights, start + "output.dense")
        self.activation = ACT2FN[config.hidden_act]
        table = weights[start + "attention.self.relative_position_bias_table"]
        self.register_buffer("bias", relative_bias(table, self.window))

    def forward(
        self, grid: Float[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch height width channels"]:
        """The refined map."""
        grid = grid + self.attend(self.norm_before(grid))
        inner = self.activation(self.widen(self.norm_after(grid)))
        out: Tensor = grid + self.narrow(inner)
        return out

    def attend(
        self, grid: Float[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch height width channels"]:
        """Attention inside windows."""
        batch, height, width, channels = grid.shape
        side, cells = self.window, self.window**2
        rows, columns = (height + side - 1) // side, (width + side - 1) // side  # windows, rounded up
        # zeros, after the norm, and not masked: as in transformers, cells attend to the padding of their window
        grid = pad(grid, (0, 0, 0, columns * side - width, 0, rows * side - height))
        mask = self.get_buffer("bias")
        if self.shift:
            grid = torch.roll(grid, (-self.shift, -self.shift), (1, 2))
            # [1, heads, cells, cells] + [windows, 1, cells, cells]
            mask = mask + self.regions(rows, columns, grid)
        # [B, rows * side, columns * side, C] -> [B, rows * columns, side * side, C]
        windows = grid.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        windows = windows.reshape(batch, rows * columns, cells, channels)
        shape = (batch, rows * columns, cells, self.heads, channels // self.heads)
        query, key, value = (
            part(windows).reshape(shape).transpose(2, 3) for part in (self.query, self.key, self.value)
        )
        # eq. 4: softmax(q k^T / sqrt(d) + bias) v, in each of [B, windows, heads, cells, dim]
        scores = (query * (channels // self.heads) ** -0.5) @ key.transpose(3, 4) + mask
        # [B, windows, heads, cells, dim] -> [B, windows, cells, C] -> [B, rows * side, columns * side, C]
        attended = (scores.softmax(-1) @ value).transpose(2, 3).reshape(batch, rows * columns, cells, channels)
        grid = self.out(attended).reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        grid = grid.reshape(batch, rows * side, columns * side, channels)
        if self.shift:
            grid = torch.roll(grid, (self.shift, self.shift), (1, 2))
        return grid[:, :height, :width]  # without the padding

    def regions(self, rows: int, columns: int, like: Tensor) -> Float[Tensor, "windows 1 cells cells"]:
        """The mask between cells that only the cyclic shift has brought into one window (section 3.2, figure 4)."""
        side = self.window
        y, x = (self._region(count, like.device) for count in (rows, columns))
        # 9 regions, numbered 3 * (row's) + (column's); [windows, cells]
        region = (y.reshape(rows, 1, side, 1) * 3 + x.reshape(1, columns, 1, side)).reshape(rows * columns, side * side)
        apart = region[:, None, :, None] != region[:, None, None, :]
        return torch.where(apart, OTHER_REGION, 0.0).to(like.dtype)

    def _region(self, windows: int, device: torch.device) -> Tensor:
        """Per row or column: 0 before the last window, 1 in its first part, 2 in the part that was shifted in."""
        place = torch.arange(windows * self.window, device=device)
        last, shifted = windows * self.window - self.window, windows * self.window - self.shift
        return (place >= last).to(torch.int64) + (place >= shifted).to(torch.int64)


class Merge(nn.Module):
    """Patch merging: 2 x 2 cells become one, read column by column."""

    def __init__(self, weights: Mapping[str, Tensor], start: str) -> None:
        super().__init__()
        self.norm = _norm(weights, start + "norm", 1e-5)
        self.reduction = _linear(weights, start + "reduction")

    def forward(self, grid: Float[Tensor, "batch height width channels"]) -> Float[Tensor, "batch rows columns wider"]:
        """Half the height and width, rounded up."""
        batch, height, width, channels = grid.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2
        grid = pad(grid, (0, 0, 0, columns * 2 - width, 0, rows * 2 - height))
        # [B, 2 rows, 2 columns, C] -> [B, rows, columns, 4 C], the four cells in the order (y, x) 00, 10, 01, 11
        grid = grid.reshape(batch, rows, 2, columns, 2, channels).permute(0, 1, 3, 4, 2, 5)
        out: Tensor = self.reduction(self.norm(grid.reshape(batch, rows, columns, 4 * channels)))
        return out


def _blocks(weights: Mapping[str, Tensor], stage: int, config: Any) -> list[Block]:
    starts = [f"encoder.layers.{stage}.blocks.{index}." for index in range(config.depths[stage])]
    return [
        Block(weights, start, config.num_heads[stage], index=index, config=config) for index, start in enumerate(starts)
    ]


def padded(
    pixels: Float[Tensor, "batch 3 height width"], rows: int, columns: int
) -> Float[Tensor, "batch 3 taller wider"]:
    """The pixels, padded at the bottom and right with zeros to multiples of `rows` and `columns`."""
    height, width = pixels.shape[-2:]
    below, right = (height + rows - 1) // rows * rows - height, (width + columns - 1) // columns * columns - width
    return pad(pixels, (0, right, 0, below))


def relative_bias(table: Float[Tensor, "offsets heads"], window: int) -> Float[Tensor, "1 heads cells cells"]:
    """Swin's relative position bias (eq. 4): a learned number per head and pair of cells, by relative position."""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    # offsets from -(window - 1) to window - 1 along each axis, numbered row by row; [cells, cells]
    index = (y[:, None] - y[None] + window - 1) * (2 * window - 1) + x[:, None] - x[None] + window - 1
    return table.detach()[index].permute(2, 0, 1)[None]  # [cells, cells, heads] -> [1, heads, cells, cells]


def _fill(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    module.load_state_dict({end: weights[f"{name}.{end}"] for end, _ in module.named_parameters()})


def _norm(weights: Mapping[str, Tensor], name: str, eps: float) -> nn.LayerNorm:
    norm = nn.LayerNorm(weights[f"{name}.weight"].shape[0], eps)
    _fill(norm, weights, name)
    return norm


def _linear(weights: Mapping[str, Tensor], name: str) -> nn.Linear:
    rows, columns = weights[f"{name}.weight"].shape
    linear = nn.Linear(columns, rows, bias=f"{name}.bias" in weights)
    _fill(linear, weights, name)
    return linear
