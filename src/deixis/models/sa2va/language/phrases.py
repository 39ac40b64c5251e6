"""Many conversations about few images: each image goes through every network once."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from deixis.errors import ModelError
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.sam import SamLevels
from deixis.refer_records import Grids


@torch.no_grad()
def segment(
    model: Sa2va,
    input_ids: Int[Tensor, "rows tokens"],
    attention_mask: Bool[Tensor, "rows tokens"],
    image_of_row: tuple[int, ...],
    tiles_per_image: tuple[int, ...],
    vision: Float[Tensor, "tiles tile_tokens channels"],
    sam: SamLevels,
    *,
    grids: Grids = (),
) -> dict[str, Tensor]:
    """Masks of every `[SEG]` of given conversations, several to an image.

    The language model reads an image once and every row from there on; its keys and values are copied to the rows.

    Args:
        input_ids: whole conversations with the answer wanted ("Sure, [SEG]."), padded on the right. The rows of an
            image begin alike, up to its last token.
        attention_mask: true on real tokens.
        image_of_row: the image each row is about; every image has a row.
        tiles_per_image, vision, sam, grids: of the images, as in `Sa2va.forward`.

    Returns:
        pred_masks, pred_ious, object_scores and object_image (the row of each) as `Sa2va.forward` does.

    Raises:
        ModelError: rows of an image begin differently, or image tokens and tiles do not agree.
    """
    device, columns = input_ids.device, torch.arange(input_ids.shape[1], device=input_ids.device)
    images = torch.tensor(image_of_row, device=device)
    first = torch.tensor([image_of_row.index(image) for image in range(len(tiles_per_image))], device=device)
    seen = ((input_ids == model.image_token_id) * (columns + 1)).amax(1)  # tokens up to the image's last
    in_prefix = columns < seen[:, None]
    same = (input_ids == input_ids[first][images]) | ~in_prefix
    if not same.all() or not torch.equal(seen, seen[first][images]):
        raise ModelError("rows about one image must begin alike; write the image first in every one of them")
    longest = int(seen.max())
    tiles_of_rows = tuple(tiles_per_image[image] for image in image_of_row)
    positions = model.positions(input_ids, tiles_of_rows, tuple(grids[image] for image in image_of_row if grids))
    numbers = columns.expand(1, len(input_ids), -1) if positions is None else positions

    prefix_mask = in_prefix[first][:, :longest]
    prefix_ids = input_ids[first][:, :longest].masked_fill(~prefix_mask, 0)
    cache = DynamicCache(config=model.vlm.config.get_text_config())
    embeddings = model.embed(prefix_ids, model.project(vision), tiles_per_image)
    model.read_on(embeddings, prefix_mask, _unpacked(numbers[:, first, :longest]), cache)
    cache.batch_select_indices(images)

    rest = (seen[:, None] + columns[: input_ids.shape[1] - int(seen.min())]).clamp(max=input_ids.shape[1] - 1)
    real = attention_mask.gather(1, rest) & (columns[: rest.shape[1]] + seen[:, None] < input_ids.shape[1])
    ids = input_ids.gather(1, rest)
    hidden = model.read_on(
        model.embed_tokens(ids),
        torch.cat([prefix_mask[images], real], dim=1),
        _unpacked(numbers.gather(2, rest.expand(len(numbers), -1, -1))),
        cache,
    )
    rows, places = torch.where((ids == model.seg_token_id) & real)
    masks = model.masks(hidden[rows, places], sam, images[rows])
    return {
        "pred_masks": masks.logits,
        "pred_ious": masks.ious,
        "object_scores": masks.object_scores,
        "object_image": rows,
    }


def _unpacked(numbers: Int[Tensor, "kinds batch tokens"]) -> Tensor:
    """Positions as the language model wants them: three kinds of them, or plain ones."""
    return numbers if len(numbers) > 1 else numbers[0]
