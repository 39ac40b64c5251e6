"""`deixis review ...`."""

from __future__ import annotations

from deixis.cli.command import Command
from deixis.options.review.audit import ReviewAuditOptions
from deixis.options.review.export import ReviewExportOptions
from deixis.options.review.loop import LoopOptions
from deixis.options.review.push import ReviewPullOptions, ReviewPushOptions
from deixis.options.review.serve import ReviewServeOptions

SERVE = """
Examples:
  deixis review serve labels.json --images photos/ --model runs/cars
  deixis review serve photos/ --model runs/cars --segmenter builtin      images without labels, masks by click
  deixis review serve review.db                                          continue
  deixis detect train --data review.db ...                               train on what was reviewed

The page is at http://127.0.0.1:8100/. Several people can review at once; each writes a name first.
"""

EXPORT = """
Examples:
  deixis review export review.db --output reviewed/
  deixis review export review.db --part all --to yolo --output reviewed/ --image-files link
"""

AUDIT = """
Examples:
  deixis review audit review.db --draw 200       then judge them on the page of deixis review serve review.db
  deixis review audit review.db --output audit.json
"""

LOOP = """
Examples:
  deixis loop photos/ --names car bus --model IDEA-Research/grounding-dino-tiny --val-data val.json
  deixis review serve loop/review.db             review as many images as it asks for, then the first command again
  deixis loop labels.json --simulate --val-data val.json --model builtin --order random --output random/
"""

STUDIO = """
Examples:
  deixis review push labels.json --model runs/cars --url http://localhost:8080        with LABEL_STUDIO_API_KEY set
  deixis review push review.db --url http://localhost:8080 --backend http://localhost:8000/label-studio
  deixis review pull review.db --url http://localhost:8080
"""

COMMANDS = (
    Command(
        "review serve",
        ReviewServeOptions,
        "deixis.recipes.review.serve:serve_review",
        "look at labels and predictions in the browser, and correct them",
        SERVE,
        bare="data",
    ),
    Command(
        "review export",
        ReviewExportOptions,
        "deixis.recipes.review.export:export_review",
        "write what was reviewed as annotations of any format",
        EXPORT,
        bare="db",
    ),
    Command(
        "review audit",
        ReviewAuditOptions,
        "deixis.recipes.review.audit:audit_review",
        "precision per class from a random sample that people judge",
        AUDIT,
        bare="db",
    ),
    Command(
        "review push",
        ReviewPushOptions,
        "deixis.recipes.review.studio:push_review",
        "send a review to Label Studio, to be corrected there",
        STUDIO,
        bare="data",
    ),
    Command(
        "review pull",
        ReviewPullOptions,
        "deixis.recipes.review.studio:pull_review",
        "bring corrections of Label Studio back",
        STUDIO,
        bare="db",
    ),
    Command(
        "loop",
        LoopOptions,
        "deixis.recipes.review.loop:run_loop",
        "label a little, train, predict the rest, queue what matters; again",
        LOOP,
        bare="data",
    ),
)
