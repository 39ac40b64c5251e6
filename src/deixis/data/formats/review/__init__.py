"""A data set under review: the SQLite file of `deixis review`."""

from deixis.data.formats.record import Format, Holds
from deixis.data.formats.review.read import read_review
from deixis.data.formats.review.schema import find_review

REVIEW = Format("review", find_review, read_review, takes=("masks", "split", "findings"), holds=Holds(masks=True))
