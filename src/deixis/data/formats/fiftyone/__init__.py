"""FiftyOne's exports: FiftyOneDataset and FiftyOneImageDetectionDataset."""

from deixis.data.formats.fiftyone.read import find_fiftyone, read_fiftyone
from deixis.data.formats.fiftyone.write import write_fiftyone
from deixis.data.formats.record import Format, Holds

FIFTYONE = Format(
    "fiftyone",
    find_fiftyone,
    read_fiftyone,
    takes=("masks", "split", "findings"),
    write=write_fiftyone,
    holds=Holds(scores=True),
    decisive=True,
)
