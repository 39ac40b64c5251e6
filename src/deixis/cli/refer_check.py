"""`deixis refer check`."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.options.refer_check import ReferCheckOptions

CHECK_EXAMPLES = """
Examples:
  deixis refer check --data phrases.json --images photos/
  deixis refer check --data "refcoco#train" "refcoco#val" --no-decode --json > findings.json
  deixis refer check --data sa1b/ --max-images 1000
  deixis refer check --data phrases.json --model ByteDance/Sa2VA-1B --max-tokens 4096

Exit codes: 0 no errors, 1 errors were found, 2 the data cannot be read at all.
"""


def check(arguments: Sequence[str]) -> int:
    """Look for what is wrong with phrases and masks."""
    options = parse(ReferCheckOptions, arguments, "refer check", CHECK_EXAMPLES)
    options.check()
    from deixis.recipes.refer.check import check_refer_data

    return check_refer_data(options)
