"""The formats of phrases and masks, in the order in which they are recognised."""

from __future__ import annotations

from deixis.data.formats.record import Format
from deixis.data.formats.table import FORMATS
from deixis.data.refer_formats.chat.describe_anything import DESCRIBE_ANYTHING
from deixis.data.refer_formats.chat.gcg import GCG
from deixis.data.refer_formats.chat.llava import LLAVA
from deixis.data.refer_formats.chat.muse import MUSE
from deixis.data.refer_formats.chat.osprey import OSPREY
from deixis.data.refer_formats.openimages_masks import OPENIMAGES_MASKS
from deixis.data.refer_formats.plain_json import REFER_JSON
from deixis.data.refer_formats.reasonseg import REASONSEG
from deixis.data.refer_formats.refcoco import GREFCOCO, REFCOCO
from deixis.data.refer_formats.sa1b import SA1B
from deixis.data.refer_formats.templates import with_templates

REFER_FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        SA1B,  # first: its folder may hold millions of files, and is not listed to recognise it
        REFCOCO,
        GREFCOCO,
        OPENIMAGES_MASKS,
        REASONSEG,
        GCG,
        OSPREY,
        MUSE,
        DESCRIBE_ANYTHING,
        LLAVA,
        REFER_JSON,  # any other list
        *map(with_templates, FORMATS.values()),
    )
}
