"""The segmenter: a vision-language model and SAM 2, joined by `[SEG]`."""

from deixis.models.sa2va.bundle import Behaviour, Sa2vaBundle, init_sa2va
from deixis.models.sa2va.encoding import ConversationTokens
from deixis.models.sa2va.join import join_sa2va
from deixis.models.sa2va.language.answers import Answer, Chosen, Generated, answer, generate, select_mask
from deixis.models.sa2va.language.captions import Described, describe, sampler
from deixis.models.sa2va.language.phrases import segment
from deixis.models.sa2va.language.templates import NEW_TOKENS, REGION_START, TEMPLATES, Template
from deixis.models.sa2va.language.wording import Wording, read_wording
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.parts import freeze, merge_adapters, new_token_ids, parameter_table, part_of
from deixis.models.sa2va.regions import shown_tiles
from deixis.models.sa2va.sam import SamLevels
from deixis.models.sa2va.sam_prompts import masks_of_boxes, masks_of_clicks, masks_of_points
from deixis.models.sa2va.weights.pretrained import load_sa2va, save_sa2va
from deixis.models.sa2va.weights.released import read_released, require_released_form, save_released

__all__ = [
    "NEW_TOKENS",
    "REGION_START",
    "TEMPLATES",
    "Answer",
    "Behaviour",
    "Chosen",
    "ConversationTokens",
    "Described",
    "Generated",
    "Sa2va",
    "Sa2vaBundle",
    "SamLevels",
    "Template",
    "Wording",
    "answer",
    "describe",
    "freeze",
    "generate",
    "init_sa2va",
    "join_sa2va",
    "load_sa2va",
    "masks_of_boxes",
    "masks_of_clicks",
    "masks_of_points",
    "merge_adapters",
    "new_token_ids",
    "parameter_table",
    "part_of",
    "read_released",
    "read_wording",
    "require_released_form",
    "sampler",
    "save_released",
    "save_sa2va",
    "segment",
    "select_mask",
    "shown_tiles",
]
