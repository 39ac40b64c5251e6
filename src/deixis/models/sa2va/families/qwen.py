"""What Qwen's vision-language models have in common: pixels to patches, positions, parts, and the released layout.

Qwen takes images of any size. Here an image is cut into blocks, one per token, whose grid is handed on; or, in models
joined from a plain Qwen2.5-VL, into square tiles as InternVL's, of which each is an image to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.batch_records import Grid
from deixis.data.pixels.cuts import TILE_SIDE, Blocks, Tiling
from deixis.models.folders import read_object
from deixis.models.sa2va.families.family import Released
from deixis.models.sa2va.language.templates import TEMPLATES, Template
from deixis.models.weight_files import Rule

VISION_MODULE = "model.visual"
PARTS = {
    "model.visual.merger.": "projector",
    "model.visual.deepstack_merger_list.": "projector",
    "model.visual.": "vision",
}
MIN_PIXELS, MAX_PIXELS = 512 * 28 * 28, 2048 * 28 * 28
"""Of an image, as Sa2VA's own code sets them for every Qwen."""
BLOCKS_KEY = "deixis_pixels"
"""Where a configuration written here keeps other limits; released ones leave them to their code."""
RULES = (Rule("vlm.model.", "model.model."), Rule("vlm.lm_head.", "model.lm_head."))
FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json", "chat_template.*")
SYSTEM = "You are a helpful assistant."


def patches_of(
    vlm: Any, squares: Float[Tensor, "squares 3 side side"], grids: Sequence[Grid]
) -> tuple[Float[Tensor, "patches values"], Int[Tensor, "pictures 3"]]:
    """Pixels in the processor's order, and frames, rows and columns of patches of each picture.

    Args:
        grids: rows and columns of blocks; empty where every square is a picture.
    """
    config = vlm.config.vision_config
    patch, merge, frames = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
    count, channels, side, _ = squares.shape
    blocks = side // patch // merge  # of a square: 16 for a tile, 1 where the square is a block
    # Patches in the order in which they are merged, every picture as a film of equal frames.
    # rows and columns in three steps each: block, patch, pixel
    patches = squares.reshape(count, channels, blocks, merge, patch, blocks, merge, patch)
    patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7)  # [squares, rows, columns, merge, merge, channels, patch, patch]
    # frames before the pixels: the patch embedding is a 3D convolution
    film = patches.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
    shapes = [(1, rows * merge, columns * merge) for rows, columns in grids or [(blocks, blocks)] * count]
    pixels = film.reshape(-1, channels * frames * patch * patch).to(vlm.model.visual.dtype)  # [patches, values]
    return pixels, torch.tensor(shapes, device=squares.device)


def positions(is_image: Bool[Tensor, "batch tokens"], grids: Sequence[Grid]) -> Int[Tensor, "3 batch tokens"]:
    """Time, row and column of every token. Text counts on in all three; a picture takes as many steps as its longer
    side has tokens.

    Args:
        is_image: true on the tokens of whole pictures.
        grids: of all pictures, row by row.
    """
    device = is_image.device
    none = [torch.zeros(0, dtype=torch.long)]  # `cat` of a batch without pictures
    # [image tokens]: the row of each in its picture
    down = torch.cat(none + [torch.arange(height).repeat_interleave(width) for height, width in grids])
    across = torch.cat(none + [torch.arange(width).repeat(height) for height, width in grids])
    # The next token stands after the longer side: all of a picture's steps are taken at its last token.
    taken = torch.cat(none + [torch.tensor([0] * (h * w - 1) + [max(h, w)]) for h, w in grids])
    zeros = torch.zeros(is_image.shape, dtype=torch.long, device=device)
    # [batch, tokens]; 0 in text
    rows, columns = (zeros.masked_scatter(is_image, places.to(device)) for places in (down, across))
    steps = (zeros + 1).masked_scatter(is_image, taken.to(device))
    # Steps taken before each token. All tokens of a picture share their start, as their place in time: M-RoPE,
    # Qwen2-VL, arXiv 2409.12191.
    start = steps.cumsum(1) - steps
    return torch.stack([start, start + rows, start + columns])  # [3, batch, tokens]


def tiling(config: Any) -> Tiling:
    """Tiles of 16 x 16 tokens: 448 pixels with Qwen2.5-VL's patches, as in InternVL."""
    return Tiling(TILE_SIDE * block_px(config), TILE_SIDE)


def block_px(config: Any) -> int:
    """Side of the square that becomes one token, in pixels."""
    return int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)


def blocks(config: Any) -> Blocks:
    """How Sa2VA's own code cuts images."""
    limits = getattr(config, BLOCKS_KEY, None) or (MIN_PIXELS, MAX_PIXELS)
    return Blocks(block_px(config), int(limits[0]), int(limits[1]))


def preprocessor(config: Any) -> dict[str, Any]:
    """What transformers' processor wants to know; Sa2VA's own code sets the limits of the sizes."""
    vision = config.vision_config
    sizes = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size}
    sizes["temporal_patch_size"] = vision.temporal_patch_size
    return {"image_processor_type": "Qwen2VLImageProcessor", **sizes}


def released_qwen(model_type: str, config_class: Any, statistics: tuple[Any, Any]) -> Released:
    """The layout of a released Sa2VA that holds this Qwen whole, below `model`."""

    def recognises(values: Mapping[str, Any]) -> bool:
        kinds = {_kind(values, "text_config"), _kind(values, "vision_config"), str(values.get("base_model_type"))}
        return "llm_config" not in values and model_type in kinds

    def config(values: Mapping[str, Any], image_token_id: int, tied: bool, source: str) -> Any:
        # The top level repeats parts of text_config in some versions; only what describes the model is read.
        named = ("text_config", "vision_config", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        kept = {name: values[name] for name in (*named, BLOCKS_KEY) if name in values}
        kept["text_config"] = {**kept["text_config"], "tie_word_embeddings": tied}
        return config_class.from_dict({**kept, "image_token_id": image_token_id, "tie_word_embeddings": tied})

    def written(config: Any, template: Template) -> dict[str, Any]:
        values = {name: value for name, value in config.to_dict().items() if name != "transformers_version"}
        text = dict(values["text_config"])
        rope = dict(text.get("rope_parameters") or {})
        # Both spellings: transformers 4, for which Sa2VA's code was written, and 5.
        text |= {"rope_theta": rope.get("rope_theta"), "tie_word_embeddings": False}
        text["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
        values |= {"text_config": text, "tie_word_embeddings": False, "template": "qwen_chat"}
        return values | {"model_type": "sa2va_chat", "architectures": ["Sa2VAChatModelQwen"]}

    return Released(
        recognises,
        lambda values, folder: released_template(folder),
        config,
        ("model.lm_head.weight",),
        ("model.model.language_model.embed_tokens.weight",),
        lambda config: RULES,
        written,
        statistics,
        blocks=blocks,
        preprocessor=preprocessor,
        files=FILES,
    )


def released_template(folder: Path) -> Template:
    """Qwen's own way to write conversations, with a system turn where the folder's chat template has one.

    The template is searched for the words, never rendered: it is a program.
    """
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("chat_template.*"))]
    config = folder / "tokenizer_config.json"
    texts += [json.dumps(read_object(config).get("chat_template") or "")] if config.is_file() else []
    return TEMPLATES["qwen_vl_system" if any(SYSTEM in text for text in texts) else "qwen_vl"]


def _kind(values: Mapping[str, Any], part: str) -> str:
    """model_type of a part, without its ending: transformers' versions write it with and without."""
    config = values.get(part)
    kind = str(config.get("model_type", "")) if isinstance(config, Mapping) else ""
    return kind.removesuffix("_text").removesuffix("_vision")
