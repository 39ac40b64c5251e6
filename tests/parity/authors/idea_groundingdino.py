"""IDEA-Research's network (the package `groundingdino-py`), run by itself: what it makes of pictures and captions.

    python idea_groundingdino.py REQUEST ANSWER

The request (saved by torch) holds `dtype`, `form` (sizes, see `built`), `text_encoder` (a folder with a BERT and its
tokenizer), `seed` or `checkpoint` (a `.pth` to load), and perhaps `save` (where to write one), `pictures` (a list of
[3 h w]), `captions`, `cotangents` (of logits and boxes of each layer) and `files` (pictures to preprocess).
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from meta_sam2 import in_precision
from transformers import AutoTokenizer, BertModel  # noqa: F401, before there is a torchvision that it would take for real

sys.path.append(str(Path(__file__).parent / "stand_ins_vision"))


def built(form, text_encoder):
    """A Grounding DINO of any size, as IDEA-Research's build functions make it, without dropout and checkpointing."""
    from groundingdino.models.GroundingDINO import groundingdino as module
    from groundingdino.models.GroundingDINO.backbone.backbone import Joiner
    from groundingdino.models.GroundingDINO.backbone.position_encoding import build_position_encoding
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
    from groundingdino.models.GroundingDINO.transformer import build_transformer

    module.BertModelWarper = with_square_masks
    options = SimpleNamespace(
        hidden_dim=form["width"], dropout=0.0, nheads=form["heads"], num_queries=form["queries"],
        dim_feedforward=form["feed_forward"], enc_layers=form["encoder_layers"], dec_layers=form["decoder_layers"],
        pre_norm=False, query_dim=4, transformer_activation="relu", num_patterns=0,
        num_feature_levels=form["levels"], enc_n_points=4, dec_n_points=4, two_stage_type="standard",
        embed_init_tgt=True, use_text_enhancer=True, use_fusion_layer=True, use_checkpoint=False,
        use_transformer_ckpt=False, use_text_cross_attention=True, text_dropout=0.0, fusion_dropout=0.0,
        fusion_droppath=0.0, position_embedding="sine", pe_temperatureH=20, pe_temperatureW=20,
    )  # fmt: skip
    swin = SwinTransformer(
        embed_dim=form["swin_width"], depths=form["depths"], num_heads=form["swin_heads"], window_size=7,
        out_indices=tuple(form["maps"]), drop_path_rate=0.0,
    )  # fmt: skip
    backbone = Joiner(swin, build_position_encoding(options))
    backbone.num_channels = [swin.num_features[index] for index in form["maps"]]
    return module.GroundingDINO(
        backbone, build_transformer(options), num_queries=form["queries"], aux_loss=True, iter_update=True, query_dim=4,
        num_feature_levels=form["levels"], nheads=form["heads"], two_stage_type="standard",
        dec_pred_bbox_embed_share=True, two_stage_class_embed_share=False, two_stage_bbox_embed_share=False,
        text_encoder_type=text_encoder,
    ).eval()  # fmt: skip


def with_square_masks(bert_model):
    """Stands for their wrapper, which is written for transformers 4: BERT with a mask of who attends to whom."""
    forward = bert_model.forward

    def masked(input_ids, token_type_ids, attention_mask, position_ids):
        return forward(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids,
            attention_mask=attention_mask[:, None],
        )  # fmt: skip

    bert_model.forward = masked
    return bert_model


def masks_in_order(model):
    """Their text layers repeat the masks of a batch head by head, where attention wants them picture by picture; with
    different captions they would be mixed up. This hands them over expanded in the right order."""
    for layer in model.transformer.encoder.text_layers:
        forward, heads = layer.forward, layer.nhead

        def ordered(src, src_mask, forward=forward, heads=heads, **others):
            return forward(src, src_mask=src_mask.repeat_interleave(heads, dim=0), **others)

        layer.forward = ordered


def shaken(model, seed):
    """Noise on every weight: what starts at zero would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in dict.fromkeys(model.parameters()):
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def seen(model, pictures, captions):
    """Logits and boxes of each decoder layer, and where the queries started. Padded tokens have no logits."""
    from groundingdino.util.misc import inverse_sigmoid, nested_tensor_from_tensor_list

    kept = {}
    hook = model.transformer.register_forward_hook(lambda _, given, found: kept.update(found=found, text=given[-1]))
    out = model(nested_tensor_from_tensor_list(list(pictures)), captions=captions)
    hook.remove()
    states, references = kept["found"][0], kept["found"][1]
    boxes = [
        (head(state) + inverse_sigmoid(place)).sigmoid()
        for state, place, head in zip(states, references[:-1], model.bbox_embed, strict=True)
    ]
    logits = [head(state, kept["text"]) for state, head in zip(states, model.class_embed, strict=True)]
    assert torch.equal(boxes[-1], out["pred_boxes"])
    assert torch.equal(logits[-1], out["pred_logits"])
    return {"logits": torch.stack(logits), "boxes": torch.stack(boxes), "starts": references[0]}


def gradients(model, answer, cotangents):
    """Of the sum of all outputs, each times its cotangent, by parameter."""
    real = answer["logits"].isfinite()
    total = (answer["logits"][real] * cotangents["logits"][real]).sum() + (answer["boxes"] * cotangents["boxes"]).sum()
    total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def preprocessed(file):
    """As their `load_image` does it."""
    import groundingdino.datasets.transforms as transforms
    from PIL import Image

    steps = [transforms.RandomResize([800], max_size=1333), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return transforms.Compose(steps)(Image.open(file).convert("RGB"), None)[0]


def main(request_path, answer_path):
    request = torch.load(request_path, weights_only=False)
    answer = {}
    if "files" in request:
        answer["preprocessed"] = [preprocessed(file) for file in request["files"]]
    if "form" in request:
        torch.manual_seed(request.get("seed", 0))
        model = built(request["form"], request["text_encoder"])
        if "checkpoint" in request:
            state = torch.load(request["checkpoint"])["model"]
            missing, unexpected = model.load_state_dict(state, strict=False)
            answer |= {"missing": missing, "unexpected": unexpected}
        else:
            shaken(model, request["seed"])
        if "save" in request:
            torch.save({"model": {f"module.{n}": t for n, t in model.state_dict().items()}}, request["save"])
        if "pictures" in request:
            in_precision(request["dtype"])
            model.to(request["dtype"])
            if len(set(request["captions"])) > 1:
                masks_in_order(model)
            found = seen(model, [p.to(request["dtype"]) for p in request["pictures"]], request["captions"])
            if "cotangents" in request:
                answer["gradients"] = gradients(model, found, request["cotangents"])
            answer |= {name: tensor.detach() for name, tensor in found.items()}
    torch.save(answer, answer_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
