"""Meta's SAM 2 (the package `sam2`), run by itself: random weights, or given ones, and what it makes of inputs.

    python meta_sam2.py REQUEST ANSWER

The request (saved by torch) holds `dtype`, `form` (see `built`), `seed` or `weights`, and `pixels [1 3 side side]`,
`prompts [objects channels]`, `clip [frames 3 side side]`, `masks [objects side side]` for its first frame.
"""

from __future__ import annotations

import sys

import torch

SHIFTED = {"sam_mask_decoder.pred_obj_score_head.layers.2.bias": 3.0}  # random scores would hide most masks
DAMPED = {"sam_mask_decoder.iou_prediction_head.layers.2.weight": 0.05}  # all IoUs would be 0 or 1, the best one chance


def in_precision(dtype):
    """Meta's code keeps memories in bfloat16, whose steps would hide small differences, and names float32 in many
    places, all of which float64 is to reach."""
    torch.bfloat16 = dtype
    if dtype == torch.float64:
        torch.set_default_dtype(dtype)
        torch.Tensor.float = torch.Tensor.double
        torch.float32 = torch.float = dtype


def built(form):
    """A SAM 2.1 of any size, as Meta's configuration files build it.

    form: side, channels, width, heads, stages, windows, global_blocks, background, memory_channels, memory_layers.
    """
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    channels, cells = form["channels"], form["side"] // 16
    attention = {
        "rope_theta": 10000.0, "feat_sizes": [cells, cells], "embedding_dim": channels, "num_heads": 1,
        "downsample_rate": 1, "dropout": 0.1,
    }  # fmt: skip
    layer = MemoryAttentionLayer(
        activation="relu", d_model=channels, dim_feedforward=form["memory_hidden"], dropout=0.1,
        pos_enc_at_attn=False, pos_enc_at_cross_attn_keys=True, pos_enc_at_cross_attn_queries=False,
        self_attention=RoPEAttention(**attention),
        cross_attention=RoPEAttention(**attention, rope_k_repeat=True, kv_in_dim=form["memory_channels"]),
    )  # fmt: skip
    block = CXBlock(dim=channels, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True)
    return SAM2VideoPredictor(
        image_encoder=ImageEncoder(
            scalp=1,
            trunk=Hiera(
                embed_dim=form["width"], num_heads=form["heads"], stages=form["stages"], window_spec=form["windows"],
                global_att_blocks=form["global_blocks"],
                window_pos_embed_bkg_spatial_size=[form["background"], form["background"]],
            ),
            neck=FpnNeck(
                position_encoding=PositionEmbeddingSine(num_pos_feats=channels, normalize=True),
                d_model=channels, backbone_channel_list=[form["width"] * 2**i for i in (3, 2, 1, 0)],
                fpn_top_down_levels=[2, 3], fpn_interp_model="nearest",
            ),
        ),
        memory_attention=MemoryAttention(
            d_model=channels, pos_enc_at_input=True, layer=layer, num_layers=form["memory_layers"]
        ),
        memory_encoder=MemoryEncoder(
            in_dim=channels, out_dim=form["memory_channels"],
            position_encoding=PositionEmbeddingSine(num_pos_feats=form["memory_channels"], normalize=True),
            mask_downsampler=MaskDownSampler(embed_dim=channels, kernel_size=3, stride=2, padding=1),
            fuser=Fuser(layer=block, num_layers=2),
        ),
        num_maskmem=7, image_size=form["side"], sigmoid_scale_for_mem_enc=20.0, sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True, directly_add_no_mem_embed=True, no_obj_embed_spatial=True,
        use_high_res_features_in_sam=True, multimask_output_in_sam=True, iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True, add_tpos_enc_to_obj_ptrs=True, proj_tpos_enc_in_obj_ptrs=True,
        use_signed_tpos_enc_to_obj_ptrs=True, only_obj_ptrs_in_the_past_for_eval=True, pred_obj_scores=True,
        pred_obj_scores_mlp=True, fixed_no_obj_ptr=True, multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True, multimask_min_pt_num=0, multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
        # What Meta's build function adds for video:
        binarize_mask_from_pts_for_mem_enc=True,
    ).eval()  # fmt: skip


def shaken(model, seed):
    """Noise on every weight but the norms': what starts at zero would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        parameter.mul_(DAMPED.get(name, 1.0)).add_(SHIFTED.get(name, 0.0))


def seen(model, pixels, prompts):
    """The pyramid of a picture, and three masks for each prompt given as an embedding, as Sa2VA asks for them."""
    found = model.forward_image(pixels)
    _, features, _, sizes = model._prepare_backbone_features(found)
    sharp = [level.permute(1, 2, 0).view(1, -1, *size) for level, size in zip(features[:-1], sizes[:-1], strict=True)]
    coarse = (features[-1] + model.no_mem_embed).permute(1, 2, 0).view(1, -1, *sizes[-1])
    count = len(prompts)
    blank = (torch.zeros(count, 1, 2), -torch.ones(count, 1, dtype=torch.int32))
    sparse, dense = model.sam_prompt_encoder(points=blank, boxes=None, masks=None)
    logits, ious, _, scores = model.sam_mask_decoder(
        image_embeddings=coarse.expand(count, -1, -1, -1),
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=torch.cat([sparse, prompts[:, None]], dim=1),
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=False,
        high_res_features=[level.expand(count, -1, -1, -1) for level in sharp],
    )
    pyramid = model.image_encoder(pixels)["backbone_fpn"]
    return {"pyramid": pyramid, "logits": logits, "ious": ious, "scores": scores[:, 0]}


def followed(model, clip, masks):
    """Mask logits and object scores of every frame, by Meta's own video predictor; masks are given in the first."""
    import sam2.sam2_video_predictor as module

    module.load_video_frames = lambda **_: (clip, clip.shape[2], clip.shape[3])
    state = model.init_state("")
    for index, mask in enumerate(masks):
        model.add_new_mask(state, 0, index, mask)
    for _ in model.propagate_in_video(state):
        pass
    kept = [state["output_dict_per_obj"][index] for index in range(len(masks))]
    of = [{**one["cond_frame_outputs"], **one["non_cond_frame_outputs"]} for one in kept]
    frames = range(len(clip))
    return {
        "masks": torch.stack([torch.cat([one[frame]["pred_masks"][:, 0] for one in of]) for frame in frames]),
        "object_scores": torch.stack(
            [torch.cat([one[frame]["object_score_logits"][:, 0] for one in of]) for frame in frames]
        ),
    }


@torch.no_grad()
def main(request_path, answer_path):
    request = torch.load(request_path)
    in_precision(request["dtype"])
    torch.manual_seed(request.get("seed", 0))
    model = built(request["form"]).to(request["dtype"])
    if "weights" in request:
        model.load_state_dict(request["weights"])
    else:
        shaken(model, request["seed"])
    answer = {"weights": {name: tensor.clone() for name, tensor in model.state_dict().items()}}
    if "prompts" in request:
        answer |= seen(model, request["pixels"], request["prompts"])
    if "clip" in request:
        answer |= followed(model, request["clip"], request["masks"])
    torch.save({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in answer.items()}, answer_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
