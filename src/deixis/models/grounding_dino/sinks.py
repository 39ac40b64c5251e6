"""Attention sinks: neutral text tokens behind a prompt, which draw the attention that no name deserves.

In the fusion layers every image token attends to the tokens of the prompt, so the names of a prompt leave a trace also
where nothing is (ICLR 2026, openreview jUuXNrG7wh). Sinks give that attention another place to go. Each is a phrase of
its own, no class has their tokens, and so nothing that they find is a detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deixis.atomic_files import file_aside
from deixis.data.detect.prompts import normalise_name
from deixis.errors import ModelError
from deixis.file_modes import give_user_mode
from deixis.models.grounding_dino.bundle import GroundingDinoBundle
from deixis.models.grounding_dino.encoder import TextContext
from deixis.models.grounding_dino.layers.positions import sine_embedding

SINKS_FILE = "sinks.safetensors"
MAX_SINKS = 64
SinkKind = Literal["brackets", "mean", "random"]
BRACKETS = "[()]"


def make_sinks(
    bundle: GroundingDinoBundle, count: int, kind: SinkKind, names: Sequence[str] = ()
) -> Float[Tensor, "sinks channels"]:
    """Equal sinks of a kind that needs no training.

    Args:
        kind: "brackets", the mean feature of the text `[()]`; "mean", of the names; "random", a random vector of the
            length that features of the names have.
        names: of the classes; a full set of brackets where there is none.
    """
    words = [BRACKETS] if kind == "brackets" or not names else names
    features = torch.cat([_features(bundle, word) for word in words])  # [tokens, C]
    vector = features.mean(0)
    if kind == "random":
        noise = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0)).to(features)
        vector = noise / noise.norm() * features.norm(dim=1).mean()
    return vector.repeat(count, 1)  # [count, C]


def with_sinks(context: TextContext, sinks: Float[Tensor, "sinks channels"] | None) -> TextContext:
    """Encoded prompts with sinks behind them; each attends to itself alone, in the first place of a phrase."""
    if sinks is None or not len(sinks):
        return context
    (batch, _, channels), count = context.tokens.shape, len(sinks)
    tokens = sinks.to(context.tokens).expand(batch, -1, -1)  # [S, C] -> [B, S, C]
    itself = torch.eye(count, dtype=torch.bool, device=tokens.device).expand(batch, 1, -1, -1)
    # [B, S, C]: the embedding of position 0
    start = sine_embedding(torch.zeros(batch, count).to(context.positions), channels, temperature=10000)
    # two blocks on the diagonal: [B, 1, L, L] and [B, 1, S, S] -> [B, 1, L + S, L + S]
    # `pad` makes a copy, so the context's own mask is not written to
    phrases = nn.functional.pad(context.phrase_mask, (0, count, 0, count))
    phrases[..., -count:, -count:] = itself
    return TextContext(
        torch.cat((context.tokens, tokens), dim=1),
        nn.functional.pad(context.mask, (0, count), value=True),
        phrases,
        torch.cat((context.positions, start), dim=1),
    )


def write_sinks(folder: Path, sinks: Float[Tensor, "sinks channels"] | None) -> None:
    """Write sinks into a model's folder, all or nothing, or remove those there.

    Raises:
        ModelError: the file cannot be written.
    """
    path = folder / SINKS_FILE
    try:
        if sinks is None:
            path.unlink(missing_ok=True)
            return
        with file_aside(path) as draft:
            save_file({"sinks": sinks.detach().cpu().contiguous()}, draft)
            give_user_mode(draft)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be written ({error}); choose another folder") from error


def read_sinks(folder: Path, channels: int) -> Float[Tensor, "sinks {channels}"] | None:
    """The sinks in a model's folder; None where it has none.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    path = folder / SINKS_FILE
    if not path.is_file():
        return None
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); remove the file") from error
    sinks = tensors.get("sinks")
    fits = sinks is not None and sinks.ndim == 2 and sinks.shape[1] == channels and 0 < len(sinks) <= MAX_SINKS
    if not fits or sinks is None or not (sinks.is_floating_point() and sinks.isfinite().all()):
        raise ModelError(f"{path}: expected 1 to {MAX_SINKS} vectors of {channels} finite numbers; remove the file")
    return sinks.float()


@torch.no_grad()
def _features(bundle: GroundingDinoBundle, name: str) -> Float[Tensor, "tokens channels"]:
    """The projected features of a name's tokens, without its delimiter."""
    device = bundle.model.model.level_embed.device
    ids, _ = bundle.prompt_tokenizer(normalise_name(name) + ".")
    # [1, tokens]; the delimiter makes the name a phrase, whose tokens attend to each other
    input_ids = torch.tensor([ids], device=device)
    context = bundle.model.encode_text(input_ids, torch.ones_like(input_ids, dtype=torch.bool))
    return context.tokens[0, 1:-2]  # without [CLS], "." and [SEP]
