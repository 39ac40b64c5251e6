"""The recipes: which parts train, how fast and how long, chosen by the size of the data set.

images            recipe   backbone lr   text lr   lr      epochs
under 1,000       small    frozen        frozen    1e-4    20
1,000 to 10,000   medium   x 0.1         frozen    1e-4    12
over 10,000       large    x 1.0         x 0.1     1e-4    12

By name only: few, which is small with 50 epochs, and the encoder frozen until the loss stops falling, for half of the
run at most (after FT-FSOD, arXiv 2603.28182).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from deixis.models.freezing import PARTS
from deixis.options.detect_train import DetectImages, DetectLora, DetectParts, DetectTrainOptions

T = TypeVar("T")
RecipeName = Literal["few", "small", "medium", "large"]


@dataclass(frozen=True)
class Recipe:
    """What one recipe decides where the user does not."""

    backbone_lr_factor: float
    text_lr_factor: float
    learning_rate: float
    epochs: int
    encoder_from: float = 0.0


RECIPES: dict[RecipeName, Recipe] = {
    "few": Recipe(backbone_lr_factor=0.0, text_lr_factor=0.0, learning_rate=1e-4, epochs=50, encoder_from=0.5),
    "small": Recipe(backbone_lr_factor=0.0, text_lr_factor=0.0, learning_rate=1e-4, epochs=20),
    "medium": Recipe(backbone_lr_factor=0.1, text_lr_factor=0.0, learning_rate=1e-4, epochs=12),
    "large": Recipe(backbone_lr_factor=1.0, text_lr_factor=0.1, learning_rate=1e-4, epochs=12),
}


TRAINED_BY_KEEPING = {"prompt": ("text",), "edit": ("encoder", "decoder")}
"""Parts of the detector in which something trains, where --keep decides what."""
PROMPT_LEARNING_RATE = 1e-2  # of token embeddings, where nothing else trains


def recipe_for(images: int) -> RecipeName:
    """The recipe for a number of training images.

    >>> recipe_for(999), recipe_for(1000), recipe_for(10_000), recipe_for(10_001)
    ('small', 'medium', 'medium', 'large')
    """
    if images < 1000:
        return "small"
    return "medium" if images <= 10_000 else "large"


def default_augmentation(options: DetectTrainOptions) -> Literal["light", "none"]:
    """None where only token embeddings train: with as many new names found, far fewer false ones (docs/learning.md)."""
    own = options.flip_probability != DetectImages.flip_probability
    return "none" if options.keep == "prompt" and not own else "light"


def resolve(options: DetectTrainOptions, images: int) -> DetectTrainOptions:
    """The options with every value that the recipe decides filled in; what the user gave stays."""
    name: RecipeName = recipe_for(images) if options.recipe == "auto" else options.recipe
    recipe = RECIPES[name]
    if options.keep == "prompt":
        recipe = replace(recipe, learning_rate=PROMPT_LEARNING_RATE)
        options = replace(options, weight_decay=0.0)  # it would change the rows of all other tokens
    epochs = _given(options.epochs, recipe.epochs)
    return replace(
        options,
        recipe=name,
        epochs=epochs,
        # measured once, at the end: no epoch is chosen on the images that train
        evaluate_every=epochs if options.without_validation else options.evaluate_every,
        learning_rate=_given(options.learning_rate, recipe.learning_rate),
        backbone_lr_factor=_given(options.backbone_lr_factor, recipe.backbone_lr_factor),
        text_lr_factor=_given(options.text_lr_factor, recipe.text_lr_factor),
        augment=_given(options.augment, default_augmentation(options)),
        ema_decay=_given(options.ema_decay, 0.0),
        eval_batch_size=_given(options.eval_batch_size, options.batch_size),
    )


def learning_rates(
    parts: DetectParts, lora: DetectLora, learning_rate: float | None, *, keep: str = "none"
) -> dict[str, float]:
    """Learning rate of each part of the model, from resolved options; 0 means frozen."""
    full = learning_rate or 0.0
    if keep in TRAINED_BY_KEEPING:
        return {part: full if part in TRAINED_BY_KEEPING[keep] else 0.0 for part in PARTS}
    if lora.lora:
        return {part: full if part in lora.lora_targets else 0.0 for part in PARTS}
    factors = {"backbone": parts.backbone_lr_factor or 0.0, "text": parts.text_lr_factor or 0.0}
    return {part: 0.0 if part in parts.freeze else full * factors.get(part, 1.0) for part in PARTS}


def late_parts(name: str) -> dict[str, float]:
    """Parts that a recipe trains only after a share of the run, and that share.

    >>> late_parts("few"), late_parts("small")
    ({'encoder': 0.5}, {})
    """
    start = next(recipe.encoder_from for known, recipe in RECIPES.items() if known == name)
    return {"encoder": start} if start else {}


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
