"""ODVG: one JSON line per image, for detection and grounding."""

from deixis.data.formats.odvg.read import find_odvg, read_odvg
from deixis.data.formats.odvg.write import unused_phrases, write_odvg
from deixis.data.formats.record import Format, Holds

ODVG = Format(
    "odvg",
    find_odvg,
    read_odvg,
    takes=("findings",),
    write=write_odvg,
    holds=Holds(own_names=True, captions=True, unknown=True),
    also_not_kept=unused_phrases,
)
