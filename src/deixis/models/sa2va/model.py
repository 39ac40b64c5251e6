"""The segmenter: a vision-language model whose `[SEG]` tokens prompt SAM 2 (arXiv 2501.04001).

    tiles ──vision──▶ projector ──▶ language model ──▶ logits where a label is
                                        │ hidden state at [SEG]
    pixels ──SAM 2 encoder──▶ mask decoder ◀── text_hidden_fcs

Both halves are transformers' own; what joins them is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from deixis.batch_records import Grid, Grids, Regions
from deixis.errors import ModelError
from deixis.models.sa2va.families.table import family_of
from deixis.models.sa2va.language.token_rows import TokenRows
from deixis.models.sa2va.regions import in_every_frame, placed_tokens, shown_tiles, spatial_projection, spatial_tokens
from deixis.models.sa2va.sam import Masks, SamLevels, decode_masks, encode_image
from deixis.models.sa2va.sam_protocol import Sam

IGNORED = -100


class Sa2va(nn.Module):
    """A vision-language model and SAM 2, joined.

    Attributes:
        vlm: transformers' vision-language model, with its output layer.
        family: what kind of model that is.
        sam: transformers' `Sam2Model` or `Sam2VideoModel`.
        text_hidden_fcs: from a hidden state to a prompt: Linear, ReLU, Linear, Dropout(0).
        spatial_token: from a region's outline to one more token of it; see `add_spatial_token`.
        token_rows: rows of the new tokens while they train apart from the rest.
        seg_token_id: of `[SEG]`.
        objects_at_once: see `sam.decode_masks`; None unless memory is to be saved.
    """

    def __init__(self, vlm: Any, sam: Sam, seg_token_id: int) -> None:
        super().__init__()
        self.family = family_of(vlm.config)
        self.vlm = vlm
        self.sam = sam
        hidden = vlm.config.get_text_config().hidden_size
        # In the language model's precision, which its inputs, the hidden states, have.
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, sam.hidden_dim), nn.Dropout(0.0)
        ).to(vlm.dtype)
        self.spatial_token: nn.Sequential | None = None
        self.token_rows: TokenRows | None = None
        self.seg_token_id = seg_token_id
        self.objects_at_once: int | None = None

    def add_spatial_token(self) -> None:
        """Give each region one more token, of its outline; see `spatial`. Random weights: seed torch first."""
        if self.spatial_token is None:
            hidden = self.vlm.config.get_text_config().hidden_size
            weight = self.vlm.get_input_embeddings().weight
            self.spatial_token = spatial_projection(hidden).to(device=weight.device, dtype=weight.dtype)

    def forward(
        self,
        tiles: Float[Tensor, "tiles 3 tile tile"] | None,
        tiles_per_image: tuple[int, ...],
        sam_pixels: Float[Tensor, "frames 3 side side"] | None,
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Bool[Tensor, "batch tokens"],
        labels: Int[Tensor, "batch tokens"] | None = None,
        *,
        vision: Float[Tensor, "tiles tile_tokens channels"] | None = None,
        sam: SamLevels | None = None,
        regions: Regions | None = None,
        frames_per_image: tuple[int, ...] = (),
        grids: Grids = (),
    ) -> dict[str, Tensor]:
        """Masks of every `[SEG]`, and logits of every labelled token.

        Args:
            tiles: normalised, all images one after another; unused where `vision` is given.
            tiles_per_image: how many of them are each image's.
            sam_pixels: normalised; unused where `sam` is given.
            input_ids: one conversation per image, padded on the right, with an image token for every tile token.
            attention_mask: true on real tokens.
            labels: the token that each position is (not shifted), -100 where no loss is wanted.
            vision, sam: what `vision_features` and `sam_features` gave for the images.
            regions: that the conversations ask about; a placeholder for each of their tokens follows the image's own.
            frames_per_image: where rows are about clips, or have no `[SEG]`, how many of `sam_pixels` are each row's:
                every `[SEG]` is then an object in each of them. Empty for one each.
            grids: of each image's pictures, where its tiles form one together.

        Returns:
            pred_masks [objects 3 mask mask]: logits; pred_ious [objects 3] in [0, 1]; object_scores [objects]: logits;
            object_image [objects]: the image, or frame, of each. Objects are the `[SEG]` tokens, row by row, from left
            to right, of a clip each in all frames before the next.
            With labels also label_logits [labels vocabulary] and label_ids [labels], row by row.
            Where prompts point first, also point_logits [objects h w], on the cells of SAM 2's coarse level.

        Raises:
            ModelError: image tokens and tiles do not agree.
        """
        if vision is None:
            vision = self.vision_features(
                _given(tiles, "tiles", "vision"), [grid for of_row in grids for grid in of_row]
            )
        sam = self.sam_features(_given(sam_pixels, "sam_pixels", "sam")) if sam is None else sam
        embeddings = self.embed(input_ids, self.project(vision), tiles_per_image, regions)  # [batch, tokens, wide]
        positions = self.positions(input_ids, shown_tiles(tiles_per_image, regions), grids)
        hidden = self.hidden_states(embeddings, attention_mask, positions)  # [batch, tokens, hidden]
        # [segs] each. Read at `[SEG]` itself; LISA and GLaMM read at the token before it, from which it was predicted.
        rows, columns = torch.where((input_ids == self.seg_token_id) & attention_mask)
        segs, images = in_every_frame(rows, frames_per_image)  # [objects] each; with clips more objects than `[SEG]`s
        rows, columns = rows[segs], columns[segs]
        asking = hidden[rows, columns]  # [objects, hidden]
        outputs = {"object_image": images}
        masks = self.masks(asking, sam, images)
        outputs |= {"pred_masks": masks.logits, "pred_ious": masks.ious, "object_scores": masks.object_scores}
        if masks.points is not None:
            outputs["point_logits"] = masks.points
        return outputs if labels is None else outputs | self._label_outputs(hidden, labels)

    def _label_outputs(
        self, hidden: Float[Tensor, "batch tokens hidden"], labels: Int[Tensor, "batch tokens"]
    ) -> dict[str, Tensor]:
        """label_logits and label_ids of `forward`."""
        # The state at a position predicts the token after it: labels move one to the left.
        following = labels[:, 1:]  # [batch, tokens - 1]
        labelled = following != IGNORED
        # Only where there is a label: a vocabulary has 150,000 tokens, and most positions are images and questions.
        logits = self.token_logits(hidden[:, :-1][labelled])  # [labels, vocabulary]
        return {"label_logits": logits, "label_ids": following[labelled]}

    def vision_features(
        self, tiles: Float[Tensor, "tiles 3 tile tile"], grids: Sequence[Grid] = ()
    ) -> Float[Tensor, "tiles tile_tokens channels"]:
        """What the vision encoder sees, before the projector. Without a graph where the encoder is frozen.

        Of no tiles (conversations in text alone) it is nothing of what it is of a blank one: every process of a
        distributed run must touch the same parameters.

        Args:
            grids: that the tiles form, of all pictures one after another; empty where each tile is a picture.
        """
        shown = tiles if len(tiles) else tiles.new_zeros(1, *tiles.shape[1:])
        with _no_graph_if_frozen(self.vlm.get_submodule(self.family.vision_module)):
            return self.family.vision(self.vlm, shown, grids)[: len(tiles)]

    def sam_features(self, sam_pixels: Float[Tensor, "batch 3 side side"]) -> SamLevels:
        """SAM 2's feature pyramid, before the mask decoder. Without a graph where the encoder is frozen.

        Of no pictures it is that of a blank one: every process of a distributed run must touch the same parameters.
        """
        if not len(sam_pixels):
            sam_pixels = sam_pixels.new_zeros(1, *sam_pixels.shape[1:])
        with _no_graph_if_frozen(self.sam.vision_encoder):
            return encode_image(self.sam, sam_pixels)

    def project(self, vision: Float[Tensor, "tiles tile_tokens channels"]) -> Float[Tensor, "tiles tile_tokens wide"]:
        """Image features as the language model's embeddings; for some families with parts for later layers."""
        return self.family.project(self.vlm, vision)

    def embed(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        image_tokens: Float[Tensor, "tiles tile_tokens wide"],
        tiles_per_image: tuple[int, ...],
        regions: Regions | None = None,
    ) -> Float[Tensor, "batch tokens wide"]:
        """Text embeddings with the images', and after them their regions', put where the image tokens stand.

        Raises:
            ModelError: a row has another number of image tokens than its image's tiles and regions have.
        """
        is_image = input_ids == self.image_token_id  # [batch, tokens]
        outlines = () if regions is None else regions.outlines
        spatial = None if self.spatial_token is None else spatial_tokens(self.spatial_token, outlines)
        placed, counts = placed_tokens(image_tokens, tiles_per_image, regions, spatial)  # [placeholders, wide]
        if tuple(found := is_image.sum(1).tolist()) != counts:
            raise ModelError(
                f"the rows have {found} image tokens, their tiles and regions {list(counts)} "
                f"({len(image_tokens)} tiles of {image_tokens.shape[1]} tokens); write one image token for each"
            )
        embeddings = self.embed_tokens(input_ids)  # [batch, tokens, hidden]
        # Text has nothing to say to later layers: [batch, tokens, wide] with zeros there.
        embeddings = F.pad(embeddings, (0, placed.shape[-1] - embeddings.shape[-1]))
        # Placeholders are filled row by row, from left to right: the order of `placed`.
        return embeddings.masked_scatter(is_image[..., None], placed.to(embeddings.dtype))

    def embed_tokens(self, input_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens hidden"]:
        """Embeddings of text alone."""
        embeddings: Tensor = self.vlm.get_input_embeddings()(input_ids)
        return embeddings if self.token_rows is None else self.token_rows.embed(input_ids, embeddings)

    def positions(
        self, input_ids: Int[Tensor, "batch tokens"], tiles_per_image: tuple[int, ...], grids: Grids = ()
    ) -> Int[Tensor, "3 batch tokens"] | None:
        """Time, row and column of every token where the language model tells them apart, else None.

        Args:
            tiles_per_image: whole tiles in each row; the image tokens after theirs are regions', and count on as text.
            grids: of the pictures in each row, where the tiles form them together.

        Raises:
            ModelError: a row has fewer image tokens than its pictures.
        """
        if self.family.positions is None:
            return None
        side = self.family.tiling(self.vlm.config).side
        # Without grids each tile is a picture of its own, of side × side tokens.
        grids = grids or tuple(((side, side),) * tiles for tiles in tiles_per_image)
        counts = [sum(rows * columns for rows, columns in of_row) for of_row in grids]
        is_image = input_ids == self.image_token_id
        # A row's first image tokens are its pictures'; those after them are its regions' and have no place in a grid.
        whole = is_image & (is_image.cumsum(1) <= torch.tensor(counts, device=input_ids.device)[:, None])
        if (found := whole.sum(1).tolist()) != counts:
            raise ModelError(f"the rows have {found} image tokens, their pictures {counts}; write one for each")
        return self.family.positions(whole, [grid for of_row in grids for grid in of_row])

    def hidden_states(
        self,
        embeddings: Float[Tensor, "batch tokens wide"],
        attention_mask: Bool[Tensor, "batch tokens"],
        positions: Int[Tensor, "3 batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens hidden"]:
        """The language model's last layer, normalised; what follows a token does not change its state."""
        return self.read_on(embeddings, attention_mask, positions, None)

    def read_on(
        self,
        embeddings: Float[Tensor, "batch tokens wide"],
        attention_mask: Bool[Tensor, "batch all_tokens"],
        positions: Tensor | None,
        cache: Any,
    ) -> Float[Tensor, "batch tokens hidden"]:
        """As `hidden_states`, after what a cache of transformers holds already; these tokens are added to it."""
        outputs = self.family.read(
            self.vlm,
            embeddings,
            attention_mask=attention_mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = outputs.last_hidden_state
        return hidden

    def token_logits(self, hidden: Float[Tensor, "positions hidden"]) -> Float[Tensor, "positions vocabulary"]:
        """Logits of the next token."""
        logits: Tensor = self.vlm.lm_head(hidden)
        return logits if self.token_rows is None else self.token_rows.predict(hidden, logits)

    def masks(
        self, hidden: Float[Tensor, "objects hidden"], sam: SamLevels, image_of_object: Int[Tensor, " objects"]
    ) -> Masks:
        """Masks from the hidden states at `[SEG]`. With no objects the result is empty and still has a graph."""
        # Computing again what was not kept saves memory only where there is a backward pass.
        at_once = self.objects_at_once if torch.is_grad_enabled() else None
        if len(hidden):
            return decode_masks(self.sam, self.text_hidden_fcs(hidden), sam, image_of_object, at_once)
        # Every process of a distributed run must touch the same parameters.
        blank = decode_masks(self.sam, self.text_hidden_fcs(hidden.new_zeros(1, hidden.shape[1])), sam, _first(sam))
        return blank.of(slice(0))

    @property
    def image_token_id(self) -> int:
        """Of the token whose embeddings are an image's."""
        return int(self.vlm.config.image_token_id)


def _given(tensor: Tensor | None, name: str, cached: str) -> Tensor:
    if tensor is None:
        raise ModelError(f"neither {name} nor {cached} is given; the segmenter needs one of them")
    return tensor


def _first(sam: SamLevels) -> Tensor:
    return torch.zeros(1, dtype=torch.long, device=sam[0].device)


def _no_graph_if_frozen(module: nn.Module) -> Any:
    trains = any(parameter.requires_grad for parameter in module.parameters())
    return nullcontext() if trains else torch.no_grad()
