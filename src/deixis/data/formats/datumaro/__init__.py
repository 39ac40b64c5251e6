"""Datumaro's JSON."""

from deixis.data.formats.datumaro.read import find_datumaro, read_datumaro
from deixis.data.formats.datumaro.write import write_datumaro
from deixis.data.formats.record import Format, Holds

DATUMARO = Format(
    "datumaro",
    find_datumaro,
    read_datumaro,
    takes=("masks", "split", "findings"),
    write_parts=write_datumaro,
    holds=Holds(masks=True, boxes_beside_masks=False, crowds=True),
    decisive=True,
)
