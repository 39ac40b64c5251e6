"""A detector small enough to train from scratch on two CPU cores: its tokenizer and its configuration.

The tokenizer is a WordPiece tokenizer with BERT's ids for special tokens (101 [CLS], 102 [SEP], 1012 '.', 1029 '?'),
from which Grounding DINO's attention mask is built. It has tokens for a few words and
spells all others letter by letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, MMGroundingDinoConfig, PreTrainedTokenizerFast, SwinConfig

SPECIAL_TOKEN_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
FIRST_ASCII_ID = 999  # of '!'; from here BERT's uncased vocabulary lists printable ASCII without A-Z
IMAGE_SIZE = (128, 213)  # default shortest and longest side of the small detector's images, in pixels


def small_vocabulary(words: Sequence[str]) -> dict[str, int]:
    """Token to id: BERT's special ids and ASCII ids, letters inside words, then whole words."""
    token_ids = dict(SPECIAL_TOKEN_IDS)
    printable = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    token_ids |= {character: FIRST_ASCII_ID + i for i, character in enumerate(printable)}
    pieces = [f"##{character}" for character in printable if character.isalnum()]
    for token in [*pieces, *sorted(set(words))]:
        token_ids.setdefault(token, max(token_ids.values()) + 1)
    taken = set(token_ids.values())
    # BERT's placeholders for the ids between: then the number of tokens is that of the embedding rows
    return token_ids | {f"[unused{i}]": i for i in range(max(taken)) if i not in taken}


def small_tokenizer(words: Sequence[str]) -> Any:
    """A lower-casing WordPiece tokenizer with a token for each of the given words."""
    vocabulary = small_vocabulary(words)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_max_length=256,
    )


def small_config(vocabulary_size: int) -> MMGroundingDinoConfig:
    """MM-Grounding-DINO's form with strides 8, 16 and 32, 3 + 3 layers and 50 queries.

    About 3.2 million parameters with the 1,126 tokens of the packaged detector.
    """
    return MMGroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=224,
            embed_dim=40,
            depths=[2, 2, 4],
            num_heads=[2, 4, 8],
            window_size=7,
            drop_path_rate=0.0,
            # strides 8 and 16; the third level, of stride 32, is made from the last map
            out_features=["stage2", "stage3"],
        ),
        text_config=BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=192,
            max_position_embeddings=256,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        num_feature_levels=3,
        d_model=96,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        num_queries=50,
        max_text_len=256,
        dropout=0.0,
        fusion_dropout=0.0,
        fusion_droppath=0.0,
    )
