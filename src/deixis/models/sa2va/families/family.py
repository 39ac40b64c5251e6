"""What the segmenter asks of a vision-language model of transformers: one `Family` per kind of model.

The model is never called as a whole: images, text and positions are brought together by `Sa2va`, which can so put
other things among the tokens, take hidden states where it wants them, and compute logits only where they are needed.
Nothing outside this folder knows which family is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.batch_records import Grid
from deixis.data.pixels.cuts import Blocks, Tiling
from deixis.models.sa2va.language.templates import Template
from deixis.models.weight_files import Rule

Positions = Callable[[Bool[Tensor, "batch tokens"], Sequence[Grid]], Int[Tensor, "3 batch tokens"]]


class Heads(NamedTuple):
    """Of a language model's attention: key-value heads, and queries for each."""

    groups: int
    queries: int


@dataclass(frozen=True)
class Released:
    """How released Sa2VA checkpoints hold the family.

    Attributes:
        recognises: whether a released config.json describes it.
        template: how conversations are written, by config.json and the folder.
        config: transformers' configuration, by (config.json, image token, whether the output layer is the embedding,
            source for messages). Raises ModelError for what is not supported.
        output_layers: names of the output layer; where the checkpoint has none of them, it is the embedding.
        embeddings: names of the embedding.
        rules: where the vision-language model's tensors are, by its configuration.
        values: config.json without SAM 2's part, by (configuration, template).
        heads: of the attention, where the checkpoint holds queries, keys and values interleaved.
        statistics: mean and deviation of pixels, where no preprocessor_config.json says them.
        preprocessor: what preprocessor_config.json says besides these two, by the configuration; None where the code
            knows it all and the file is not read.
        blocks: how images are cut, by the configuration; None where it is in tiles.
        files: besides config.json and code, those of a folder that are copied to the next.
    """

    recognises: Callable[[Mapping[str, Any]], bool]
    template: Callable[[Mapping[str, Any], Path], Template]
    config: Callable[[Mapping[str, Any], int, bool, str], Any]
    output_layers: tuple[str, ...]
    embeddings: tuple[str, ...]
    rules: Callable[[Any], Sequence[Rule]]
    values: Callable[[Any, Template], dict[str, Any]]
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]]
    heads: Callable[[Any], Heads] = lambda config: Heads(1, 1)
    blocks: Callable[[Any], Blocks | None] = lambda config: None
    preprocessor: Callable[[Any], dict[str, Any]] | None = None
    files: tuple[str, ...] = ()


def read_plainly(vlm: Any, embeddings: Float[Tensor, "batch tokens hidden"], **options: Any) -> Any:
    """The language model on embeddings as wide as it is, without its output layer."""
    return vlm.model.language_model(inputs_embeds=embeddings, **options)


def project_nothing(vlm: Any, features: Float[Tensor, "tiles tokens channels"]) -> Float[Tensor, "tiles tokens _"]:
    """The features as they are, where the vision encoder ends with its own projector."""
    return features


@dataclass(frozen=True)
class Family:
    """One kind of vision-language model.

    Attributes:
        name: model_type of its configuration.
        architecture: the class in transformers.
        vision_module: the module of `vision`, by its name in the model.
        vision: squares of pixels and the grids that they form (none where each is a picture) to image features. They
            may be cached where `vision_module` is frozen.
        parts: starts of parameter names to the part they belong to.
        tiling: tiles of the size that the model takes, by the configuration.
        project: image features to embeddings, perhaps wider than the language model is: what is beyond its width
            belongs to later layers, and `read` puts it there.
        read: the language model without its output layer; its last hidden state is normalised.
        positions: of tokens in rows, from (is_image, grids of all pictures); None where they count on.
        blocks: how images of a freshly joined model are cut, by the configuration; None for tiles.
        released: the layout of released checkpoints.
    """

    name: str
    architecture: Any
    vision_module: str
    vision: Callable[[Any, Tensor, Sequence[Grid]], Tensor]
    parts: Mapping[str, str]
    tiling: Callable[[Any], Tiling]
    released: Released
    project: Callable[[Any, Tensor], Tensor] = project_nothing
    read: Callable[..., Any] = read_plainly
    positions: Positions | None = None
    blocks: Callable[[Any], Blocks | None] = lambda config: None
