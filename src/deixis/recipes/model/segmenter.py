"""Say what a segmenter is, and write it in another layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deixis.console import print_text
from deixis.errors import OptionError
from deixis.models.builtin import resolve_model
from deixis.models.folders import HUB_ID, model_folder, read_object
from deixis.models.model_card import write_card
from deixis.models.sa2va import Sa2vaBundle, load_sa2va, parameter_table, save_released, save_sa2va
from deixis.models.sa2va.weights.pretrained import MODEL_TYPE
from deixis.models.sa2va.weights.released import EXAMPLE, RELEASED_TYPE
from deixis.options.model_convert import ModelConvertOptions

LAYOUTS = {MODEL_TYPE: "deixis: two halves of transformers and what joins them", RELEASED_TYPE: "released Sa2VA"}


def layout_of(model: str) -> str:
    """The model_type of a segmenter's folder; "" for a detector, or for what is no folder of a model.

    Raises:
        ModelError: there is no one model, or config.json cannot be read.
    """
    source = resolve_model(model)
    if not Path(source).is_dir() and not HUB_ID.fullmatch(str(source)):
        return ""
    path = model_folder(source, ("config.json", "adapter_config.json"), EXAMPLE) / "config.json"
    kind = read_object(path).get("model_type") if path.is_file() else None
    return kind if kind in LAYOUTS else ""


def segmenter_lines(bundle: Sa2vaBundle, layout: str, source: str) -> list[str]:
    """What a segmenter is, part by part."""
    table = parameter_table(bundle.model)
    vlm, sam = bundle.model.vlm.config, bundle.model.sam.config
    text = getattr(vlm, "text_config", vlm)
    memory = "with its memory" if sam.model_type == "sam2_video" else "without memory: frame by frame"
    language = f"{text.model_type} of {text.num_hidden_layers} layers, {text.hidden_size} wide"
    if bundle.blocks is None:
        shown = f"tiles of {bundle.tile_px} px, {bundle.tokens_per_tile} tokens each"
    else:
        least, most = (pixels // bundle.tile_px**2 for pixels in (bundle.blocks.min_pixels, bundle.blocks.max_pixels))
        shown = f"images of {least:,} to {most:,} tokens, one per {bundle.tile_px} x {bundle.tile_px} px"
    return [
        f"{source}: {sum(row.total for row in table):,} parameters",
        f"layout       {LAYOUTS[layout]}",
        f"behaviour    {bundle.behaviour}",
        f"vision       {vlm.model_type}, {shown}",
        f"language     {language}, vocabulary {text.vocab_size:,}",
        f"SAM 2        {memory}; images of {bundle.sam_px} px, masks of {bundle.mask_px}",
        *(f"  {row.part:<16} {row.total:>13,} parameters" for row in table if row.total),
        f"tokenizer    {type(bundle.tokenizer).__name__}, {len(bundle.tokenizer):,} tokens",
        f"template     {bundle.template.name}",
    ]


def convert_segmenter(options: ModelConvertOptions) -> None:
    """Write a segmenter in Sa2VA's layout, or in that of deixis.

    Raises:
        OptionError: a layout of detectors.
        ModelError: it cannot be read, the layout has no place for it, or it cannot be written.
    """
    if options.to not in ("sa2va", "transformers"):
        raise OptionError(f"--to: {options.model} is a segmenter, expected sa2va or transformers, got {options.to!r}")
    bundle = load_sa2va(options.model, tokenizer=options.tokenizer)
    if options.dry_run:
        print_text("\n".join(segmenter_lines(bundle, layout_of(options.model) or MODEL_TYPE, options.model)))
        return
    if options.to == "transformers":
        save_sa2va(bundle, options.output)
    else:
        save_released(replace(bundle, behaviour="sa2va"), options.output, options.like)
        if bundle.behaviour == "deixis":
            print_text("Sa2VA's own code always answers with a mask: objects that are not there are not left empty")
    write_card(options.output)
    print_text(f"wrote {options.output}")
