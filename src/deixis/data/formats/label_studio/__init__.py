"""Label Studio's JSON exports, and tasks with predictions for it."""

from deixis.data.formats.label_studio.read import read_label_studio
from deixis.data.formats.label_studio.regions import find_label_studio
from deixis.data.formats.label_studio.write import write_label_studio
from deixis.data.formats.record import Format, Holds

LABEL_STUDIO = Format(
    "label_studio",
    find_label_studio,
    read_label_studio,
    takes=("masks", "findings"),
    write=write_label_studio,
    holds=Holds(masks=True, boxes_beside_masks=False, scores=True, model_version=True),
    decisive=True,
)
