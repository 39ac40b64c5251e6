"""Send a model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from deixis.console import print_text
from deixis.models.builtin import resolve_model
from deixis.models.hub.push import files_to_send, push_model
from deixis.models.model_card import CARD_FILE, write_card
from deixis.options.model_push import ModelPushOptions


def push(options: ModelPushOptions) -> None:
    """Send the files of a model's folder, with a card, which is written if there is none.

    Raises:
        DeixisError: options or folder cannot be used, or the hub cannot be reached or refuses.
    """
    options.check()
    folder = Path(resolve_model(options.model))
    files = files_to_send(folder)
    if not (folder / CARD_FILE).is_file() and not options.dry_run:
        write_card(folder, options.to.partition("/")[2])
        files = files_to_send(folder)
    sizes = {path: (folder / path).stat().st_size for path in files}
    for path, size in sizes.items():
        print_text(f"  {path.as_posix()}  {size / 1e6:.1f} MB")
    total_mb = sum(sizes.values()) / 1e6
    if options.dry_run:
        print_text(f"would send {len(files)} files, {total_mb:.0f} MB, to {options.to}")
        return
    address = push_model(folder, options.to, files, private=options.private)
    print_text(f"sent {len(files)} files, {total_mb:.0f} MB: {address}")
