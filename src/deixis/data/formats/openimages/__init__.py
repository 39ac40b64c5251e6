"""Open Images: one CSV row per box."""

from deixis.data.formats.openimages.read import find_openimages, read_openimages
from deixis.data.formats.openimages.write import write_openimages
from deixis.data.formats.record import Format, Holds

OPENIMAGES = Format(
    "openimages",
    find_openimages,
    read_openimages,
    takes=("findings",),
    write=write_openimages,
    holds=Holds(crowds=True, absent=True),
)
