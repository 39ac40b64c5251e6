"""Faithful miniatures of the public data sets of conversations: the same files, keys and quirks, few entries."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import refer_miniatures as mini
from clip_miniatures import box, frames
from pycocotools import mask as coco_mask
from refer_miniatures import LEFT, RIGHT, SIZE_HW, picture, rle

HEIGHT, WIDTH = SIZE_HW
CAPTION = "A man in red walks two dogs on the grass."


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def grandf(root: Path, name: str = "GranDf_HA_GCG_train.json") -> Path:
    """Phrases out of order, one inside another, one of two objects; OpenPSG's file has the same form."""
    picture(root / "GranDf_HA_images" / "train" / "sa_1.jpg", seed=1)
    groundings = {
        "two dogs": {"token_positives": [19, 27], "rle_masks": [rle([LEFT]), rle([RIGHT])]},
        "A man in red": {"token_positives": [0, 12], "rle_masks": [rle([LEFT])]},
        "red": {"token_positives": [9, 12], "rle_masks": [rle([RIGHT])]},
        "the grass": {"token_positives": [31, 40], "rle_masks": [rle([RIGHT])]},
    }
    entry = {"file_name": "sa_1.jpg", "caption": f'"{CAPTION}"', "groundings": groundings}
    return written(root / "annotations" / name, [entry])


def refcocog_gcg(root: Path) -> Path:
    """References that the caption has in other letters, and one that it has not."""
    name = "COCO_train2014_000000000009.jpg"
    picture(root / "coco_2014" / "train2014" / name)
    refs = [
        {"sentence": "a man in Red", "bbox": [2, 2, 10, 20], "segmentation": [LEFT]},
        {"sentence": "someone else", "bbox": [22, 4, 14, 20], "segmentation": [RIGHT]},
    ]
    entry = {"img_file_name": name, "caption": CAPTION, "refs": refs}
    return written(root / "RefCOCOg_GCG_train.json", [{"9": entry}])


def flickr_gcg(root: Path) -> Path:
    """COCO's form; two annotations of the same characters, and one to be left out."""
    picture(root / "images" / "1000092795.jpg")
    rows = [([[0, 12]], [LEFT]), ([[19, 27]], [LEFT]), ([[19, 27]], [RIGHT]), ([[31, 40]], [LEFT])]
    annotations = [
        {"id": i, "image_id": 7, "bbox": [2, 2, 10, 20], "area": 200, "tokens_positive": span, "sam_mask": rle(mask)}
        for i, (span, mask) in enumerate(rows)
    ]
    annotations[-1]["ignore"] = True
    image = {"id": 7, "file_name": "1000092795.jpg", "height": HEIGHT, "width": WIDTH, "caption": CAPTION}
    return written(root / "flickr_mergedGT_GCG_train.json", {"images": [image], "annotations": annotations})


def osprey(root: Path, name: str = "osprey_conversation.json") -> Path:
    """Two regions; descriptions have their number before them, and come in any order."""
    picture(root / "coco" / "train2017" / "000000000009.jpg")
    entry: dict[str, Any] = {
        "file_name": "COCO_train2017_000000000009.jpg" if "part" in name else "000000000009.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "annotation": [{"bbox": [2, 2, 10, 20], "segmentation": [LEFT]}, {"segmentation": rle([RIGHT])}],
    }
    if "description" in name:
        entry["description"] = ["<region2>: A dog that runs.", "<region1>: A man: tall, in red."]
    else:
        entry["conversations"] = [
            {"from": "human", "value": "What does <region1> do?"},
            {"from": "gpt", "value": "<region1> walks <region2>."},
            {"from": "human", "value": "And <region2>?"},
            {"from": "gpt", "value": "It runs."},
        ]
    return written(root / "Osprey-724K" / name, [entry])


def llava(root: Path) -> Path:
    """About an image, about nothing, about a video; what stands before the first question is left out."""
    picture(root / "llava_images" / "coco" / "train2017" / "000000000009.jpg")
    frames(root / "llava_images" / "clips" / "v_1", [f"{i:05d}" for i in range(6)])
    entries = [
        {
            "id": "1",
            "image": "coco/train2017/000000000009.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is on the table?"},
                {"from": "gpt", "value": "A red cup."},
                {"from": "human", "value": "Who left it there?\n<image>"},
                {"from": "gpt", "value": "Nobody knows."},
            ],
        },
        {
            "id": "2",
            "model": "",
            "conversations": [
                {"from": "gpt", "value": "Hello!"},
                {"from": "human", "value": "Write a page."},
                {"from": "gpt", "value": "<p>Hi</p> [SEG] <|im_end|> <div>"},
            ],
        },
        {
            "id": "3",
            "video": "clips/v_1",
            "conversations": [
                {"from": "human", "value": "What happens?\n<video>"},
                {"from": "gpt", "value": "A bar moves."},
            ],
        },
    ]
    return written(root / "LLaVA-Instruct-150K" / "llava_v1_5_mix665k.json", entries)


def muse(root: Path) -> Path:
    """An answer in words, and one without; the image is named by its address."""
    picture(root / "train2017" / "000000000009.jpg")
    entry = {
        "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "ann_list": [{"category_id": 1}, {"category_id": 2}],
        "questions": ["Who could carry the shopping home?", "What has four legs?"],
        "text_answers": ["The man {seg} could, with the dog {seg} beside him.", None],
        "answers": [
            [{"segmentation": [LEFT], "category_name": "person"}, {"segmentation": [RIGHT], "category_name": "dog"}],
            [{"segmentation": [RIGHT], "category_name": "dog", "rephrased_name": "the running dog"}],
        ],
    }
    return written(root / "MUSE_train.json", [entry])


def reasonseg(root: Path) -> Path:
    """A sentence with a region to ignore inside its target, and a phrase in cp1252."""
    square = [[2, 2], [20, 2], [20, 20], [2, 20]]
    inner = [[5, 5], [9, 5], [9, 9], [5, 9]]
    shapes = [
        {"label": "ignore", "points": inner},
        {"label": "target", "points": square, "shape_type": "polygon"},
        {"label": "flag", "points": [[0, 0], [1, 1], [2, 0]]},
    ]
    for split in ("train", "val"):
        picture(root / split / "1.jpg")
        content = {"shapes": shapes, "text": ["what keeps the rain off?", "what is dry inside?"], "is_sentence": True}
        written(root / split / "1.json", content)
    picture(root / "train" / "2.jpg", seed=2)
    content = {"shapes": shapes[1:2], "text": ["the caf\u00e9 table"], "is_sentence": False}
    (root / "train" / "2.json").write_bytes(json.dumps(content, ensure_ascii=False).encode("cp1252"))
    return root


def describe_anything(root: Path) -> Path:
    picture(root / "COCOStuff" / "images" / "000000000009.jpg")
    region = {"img_id": 9, "image": "000000000009.jpg", "tar_file": "0.tar"}
    regions = [
        {**region, "ann_id": 31, "mask_rle": rle([LEFT]), "caption": "A tall man in a red shirt, with one hand up."},
        {**region, "ann_id": 32, "mask_rle": rle([RIGHT]), "caption": "A small brown dog that runs to the right."},
    ]
    return written(root / "COCOStuff" / "annotations.json", {"9": regions}).parent


def grefcoco(root: Path, suffix: str = ".json") -> Path:
    """References to one object, to two and to none."""
    folder = mini.refcoco(root)
    (folder / "refs(unc).p").unlink()
    (root / "train2014" / "COCO_train2014_000000000030.jpg").unlink()  # no reference is to it
    refs = []
    for number, (text, ids, split) in enumerate(
        (("both", [1, 2], "train"), ("left man", [1], "train"), ("a horse", [-1], "train"), ("all", [4], "val"))
    ):
        ref = mini.refcoco_reference(number, 1, 25 if split == "val" else 9, split, text)
        refs.append({**ref, "ann_id": ids, "category_id": [1] * len(ids), "no_target": ids == [-1]})
    path = folder / f"grefs(unc){suffix}"
    path.write_bytes(pickle.dumps(refs) if suffix == ".p" else json.dumps(refs).encode())
    return folder


def youtube_with_pickle(root: Path) -> Path:
    """`mask_dict.pkl` in the folder of all splits, numbered through the videos; no PNGs."""
    names = [f"{i:05d}" for i in (0, 5, 10)]
    videos, masks = {}, {}
    left, right = (dict(coco_mask.encode(np.asfortranarray(box(x)))) for x in (0, 30))
    for video in ("0a", "0b"):
        frames(root / "train" / "JPEGImages" / video, names)
        said = {str(i): {"exp": f"box {i} of {video}"} for i in (10, 2)}  # sorted as text: 10 before 2
        videos[video] = {"expressions": said, "frames": names}
        masks |= {str(len(masks)): [left, None, left], str(len(masks) + 1): [right, right, None]}
    (root / "mask_dict.pkl").write_bytes(pickle.dumps(masks))
    return written(root / "meta_expressions" / "train" / "meta_expressions.json", {"videos": videos})
