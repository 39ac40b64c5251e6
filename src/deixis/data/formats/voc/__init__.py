"""Pascal VOC: one XML file per image."""

from deixis.data.formats.record import Format, Holds
from deixis.data.formats.voc.read import find_voc, read_voc
from deixis.data.formats.voc.write import write_voc

VOC = Format("voc", find_voc, read_voc, takes=("split", "findings"), write=write_voc, holds=Holds(all_names=False))
