"""`deixis ARGUMENTS`, but the segmenter's run breaks off with an error at the second step of its second epoch."""

from __future__ import annotations

import sys

from deixis.cli.main import main
from deixis.training.tasks.segmenter import SegmenterTask

whole = SegmenterTask.groups


def cut(self, epoch, start):
    for number, group in enumerate(whole(self, epoch, start)):
        if (epoch, number) == (1, 1):
            raise RuntimeError("cut off")
        yield group


if __name__ == "__main__":
    SegmenterTask.groups = cut
    main(sys.argv[1:])
