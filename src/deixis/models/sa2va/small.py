"""A segmenter small enough to train from nothing on two CPU cores: its tokenizer and its shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    InternVLConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Sam2Config,
    Sam2VideoConfig,
)

from deixis.models.sa2va.bundle import Behaviour, Sa2vaBundle, init_sa2va
from deixis.models.sa2va.language.templates import NEW_TOKENS

SPECIAL_TOKENS = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<img>", "<IMG_CONTEXT>", "</img>", *NEW_TOKENS)
WORDS = ("user", "assistant", "please", "segment", "the", "in", "this", "image", "sure", "it", "is", "there", "no")
"""Of the conversation itself."""


def small_chat_tokenizer(words: Sequence[str]) -> Any:
    """A lower-casing WordPiece tokenizer that knows the given words whole and spells all others letter by letter.

    Spaces and line breaks are not tokens.
    """
    printable = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    pieces = [f"##{character}" for character in printable if character.isalnum()]
    # Special tokens come first, so that their ids do not change with the words.
    known = [*SPECIAL_TOKENS, *printable, *pieces, *sorted({*WORDS, *(word.lower() for word in words)})]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(known))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(SPECIAL_TOKENS[2:]),
        model_max_length=1024,
    )


def small_vlm_config(
    tokenizer: Any,
    tile_px: int = 128,
    patch_px: int = 8,
    vision_width: int = 128,
    vision_layers: int = 4,
    text_width: int = 192,
    text_layers: int = 4,
    tied: bool = True,
) -> InternVLConfig:
    """InternVL's form: a plain ViT, 2 × 2 patches per token (64 tokens per tile of 128 px), Qwen 2."""
    tokens = (tile_px // patch_px // 2) ** 2  # the pixel shuffle joins 2 × 2 patches
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=text_width,
        intermediate_size=3 * text_width,
        num_hidden_layers=text_layers,
        num_attention_heads=text_width // 32,  # heads of 32 channels, here as in the vision encoder and in SAM 2
        num_key_value_heads=text_width // 32,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        bos_token_id=None,  # Qwen begins a text without a mark
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = {
        "hidden_size": vision_width,
        "num_hidden_layers": vision_layers,
        "num_attention_heads": vision_width // 32,
        "intermediate_size": 4 * vision_width,
        "image_size": [tile_px, tile_px],
        "patch_size": [patch_px, patch_px],
        "attention_bias": True,
        "layer_scale_init_value": 1.0,
    }
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=tokens,
        tie_word_embeddings=tied,
    )


def small_sam_config(
    side_px: int = 128,
    channels: int = 128,
    widths: tuple[int, int, int, int] = (32, 64, 128, 256),
    blocks: tuple[int, int, int, int] = (1, 1, 2, 1),
) -> Sam2Config:
    """SAM 2's form: a Hiera of few blocks, features of a quarter, an eighth and a sixteenth of the image's side.

    Args:
        widths: of the four stages, each another.
        blocks: of the four stages. The last of the third stage attends to the whole image; it must not be its first.
    """
    window = (8, 4, 4, 2)
    last_global = (sum(blocks[:3]) - 1,)  # blocks are numbered through all stages
    backbone = {
        "hidden_size": widths[0],
        "image_size": [side_px, side_px],
        "blocks_per_stage": list(blocks),
        "embed_dim_per_stage": list(widths),
        "num_attention_heads_per_stage": [max(1, width // 32) for width in widths],
        "window_size_per_stage": list(window),
        "global_attention_blocks": list(last_global),
        # A learned map of positions, enlarged to the cells of the first stage.
        "window_positional_embedding_background_size": [side_px // 16, side_px // 16],
    }
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **backbone},
        "backbone_channel_list": list(reversed(widths)),  # coarsest first, as the neck takes them
        "backbone_feature_sizes": [[side_px // stride] * 2 for stride in (4, 8, 16)],
        "fpn_hidden_size": channels,
    }
    prompt = {"hidden_size": channels, "image_size": side_px, "patch_size": 16}
    decoder = {
        "hidden_size": channels,
        "mlp_dim": 4 * channels,
        "iou_head_hidden_dim": channels,
        "num_attention_heads": max(1, channels // 32),
    }
    return Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def small_memory_config(sam_config: Sam2Config, layers: int = 2, **changes: Any) -> Sam2VideoConfig:
    """The same SAM 2 with a memory of earlier frames, in SAM 2.1's form.

    Args:
        sam_config: of `small_sam_config`.
        layers: of the memory attention.
        changes: other fields of the result.
    """
    channels, side = sam_config.vision_config.fpn_hidden_size, sam_config.prompt_encoder_config.image_size
    parts = sam_config.to_dict()
    own = {"vision_config", "prompt_encoder_config", "mask_decoder_config"}
    renamed = {
        name: {**parts[name], "model_type": parts[name]["model_type"].replace("sam2_", "sam2_video_")}
        # The parts' fields are the same in both models, their model_type is not; the vision part is the same class.
        for name in own - {"vision_config"}
    }
    memory = {
        "image_size": side,
        "memory_attention_hidden_size": channels,
        "memory_attention_num_layers": layers,
        "memory_attention_feed_forward_hidden_size": 4 * channels,
        "memory_attention_rope_feat_sizes": [side // 16, side // 16],
        "memory_attention_dropout": 0.0,
        "memory_attention_rope_dropout": 0.0,
        "memory_encoder_hidden_size": channels,
        "mask_downsampler_embed_dim": channels,
        "memory_fuser_embed_dim": channels,
        "memory_fuser_intermediate_dim": 2 * channels,
    }
    return Sam2VideoConfig(vision_config=parts["vision_config"], **renamed, **{**memory, **changes})


def small_segmenter(
    words: Sequence[str],
    behaviour: Behaviour = "deixis",
    memory: bool = False,
    *,
    sam_channels: int = 128,
    sam_widths: tuple[int, int, int, int] = (32, 64, 128, 256),
    **vlm: Any,
) -> Sa2vaBundle:
    """A small segmenter with random weights (seed torch first).

    Args:
        words: that its tokenizer knows whole, besides `WORDS`.
        memory: SAM 2 with its memory, to follow objects through videos.
        sam_channels, sam_widths: of SAM 2's features, and of its encoder's four stages.
        vlm: options of `small_vlm_config`.
    """
    tokenizer, sam = small_chat_tokenizer(words), small_sam_config(channels=sam_channels, widths=sam_widths)
    sam = small_memory_config(sam) if memory else sam
    return init_sa2va(small_vlm_config(tokenizer, **vlm), sam, tokenizer, behaviour=behaviour)
