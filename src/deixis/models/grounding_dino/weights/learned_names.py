"""Class names with token embeddings of their own, which train while the network is frozen (prompt tuning).

Each name gets one added token, `<raccoon>` for "raccoon", whose embedding row starts at the mean of the name's own
pieces. A phrase that is exactly the name is read as that token (`models.text.FastPromptTokenizer`); all other text is
read as before, so what the model does for it cannot change. Elsewhere, the token is written out: `<raccoon>.`
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from deixis.data.detect.chunking import name_tokens
from deixis.errors import ModelError
from deixis.models.grounding_dino.bundle import GroundingDinoBundle
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.text import learned_names, learned_token


def with_learned_names(bundle: GroundingDinoBundle, names: Sequence[str]) -> GroundingDinoBundle:
    """The bundle with a token for each name that has none yet; its model gets the rows in place.

    Raises:
        PromptError: a name has no piece in the model's tokenizer.
    """
    plain = bundle.prompt_tokenizer
    new = {learned_token(name): name for name in names}
    new = {token: name for token, name in new.items() if token not in bundle.tokenizer.get_added_vocab()}
    if not new:
        return bundle
    pieces = [name_tokens(name, plain)[:-1] for name in new.values()]  # without the delimiter
    tokenizer = copy.deepcopy(bundle.tokenizer)
    # not special: `learned_names` and decoding would leave out special tokens
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in new])
    grow_embeddings(bundle.model, len(tokenizer))
    weight = _embeddings(bundle.model).weight
    with torch.no_grad():
        for token, own in zip(new, pieces, strict=True):
            weight[tokenizer.convert_tokens_to_ids(token)] = weight[list(own)].mean(0)  # [pieces, C] -> [C]
    return replace(bundle, tokenizer=tokenizer)


def grow_embeddings(model: GroundingDino, rows: int) -> None:
    """Give the text encoder's table of embeddings at least this many rows; new ones are zero until they are set."""
    old = _embeddings(model)
    if rows <= old.num_embeddings:
        return
    grown = nn.Embedding(rows, old.embedding_dim, old.padding_idx, dtype=old.weight.dtype, device=old.weight.device)
    with torch.no_grad():
        grown.weight.zero_()
        grown.weight[: old.num_embeddings] = old.weight
    model.model.text_backbone.set_input_embeddings(grown)
    model.config.text_config.vocab_size = rows
    model.model.text_backbone.config.vocab_size = rows


def train_learned_names(bundle: GroundingDinoBundle, names: Sequence[str]) -> None:
    """Freeze everything but the embedding rows of these names.

    The rows share a tensor with those of all other tokens, whose gradient is set to zero. The optimiser must not decay
    this tensor.

    Raises:
        ModelError: a name has no token of its own.
    """
    own = learned_names(bundle.tokenizer)
    places = {name: own.get(learned_token(name)[1:-1]) for name in names}
    ids = [token_id for token_id in places.values() if token_id is not None]
    if len(ids) < len(places):
        # by its ids the tokenizer would answer with [UNK], the row of all unknown words
        missing = [name for name, token_id in places.items() if token_id is None]
        raise ModelError(f"{', '.join(missing)}: no tokens of their own; call with_learned_names for them first")
    bundle.model.requires_grad_(False)
    weight = _embeddings(bundle.model).weight
    # [vocabulary, 1], over all channels
    rows = torch.zeros(len(weight), 1)
    rows[ids] = 1

    def only_rows(gradient: Tensor) -> Tensor:
        return gradient * rows.to(gradient)

    weight.requires_grad_(True)
    weight.register_hook(only_rows)  # type: ignore[no-untyped-call]


def _embeddings(model: GroundingDino) -> nn.Embedding:
    embeddings = model.model.text_backbone.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    return embeddings
