"""The formats of clips, in the order in which they are recognised."""

from __future__ import annotations

from deixis.data.clip_formats.davis import DAVIS
from deixis.data.clip_formats.expressions_json import MEVIS
from deixis.data.clip_formats.ref_youtube_vos import REF_YOUTUBE_VOS
from deixis.data.clip_formats.sav import REF_SAV, SAV, SAV_VAL
from deixis.data.formats.record import Format

CLIP_FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        REF_SAV,
        MEVIS,
        REF_YOUTUBE_VOS,  # after the two whose files may have the same name and keys
        SAV_VAL,
        DAVIS,
        SAV,
    )
}
