"""Text features of class names, for comparing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from deixis.data.detect.chunking import chunk_prompts
from deixis.data.detect.collate import pad_prompts
from deixis.models.grounding_dino.bundle import GroundingDinoBundle
from deixis.models.grounding_dino.text import encode_tokens


@torch.no_grad()
def name_features(bundle: GroundingDinoBundle, names: Sequence[str]) -> Float[np.ndarray, "names channels"]:
    """A unit vector per name: the mean of its tokens' last hidden states, minus the mean over all names.

    BERT's features of all texts share a large common part; without subtracting it any two names are similar. Tokens
    attend only within their own name, so apart from that mean a name's vector does not depend on the other names.

    Raises:
        PromptError: as `chunk_prompts`.
    """
    encoder = bundle.model.model.text_backbone
    training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    means = []
    for prompt in chunk_prompts(names, bundle.prompt_tokenizer, bundle.model.max_text_len):
        hidden = encode_tokens(encoder, *(tensor.to(device) for tensor in pad_prompts([prompt])))[0]
        # [names, L] @ [L, C] -> [names, C]
        means.append(prompt.positive_map @ hidden.float().cpu().numpy())
    encoder.train(training)
    vectors = np.concatenate(means)
    vectors -= vectors.mean(0)
    unit: Float[np.ndarray, "names channels"]
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
    return unit
