"""Detections that `deixis detect predict` wrote, as annotations."""

from deixis.data.formats.predictions.read import find_predictions, read_predictions
from deixis.data.formats.record import Format

PREDICTIONS = Format("predictions", find_predictions, read_predictions, takes=("findings",))
