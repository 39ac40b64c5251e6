"""The options files that come with deixis, by name: `--config detector_finetune`, `deixis config list | show`."""

from __future__ import annotations

from pathlib import Path

from deixis.errors import OptionError
from deixis.options.config import ConfigListOptions, ConfigShowOptions

FOLDER = Path(__file__).parent.parent / "recipes" / "configs"


def config_file(name: str) -> Path:
    """The file that `--config` means: one of the user's own, or else a preset, with or without its ending.

    Raises:
        OptionError: there is neither.
    """
    own, preset = Path(name), FOLDER / f"{name.removesuffix('.yaml')}.yaml"
    if own.exists():
        return own
    if "/" in name or not preset.is_file():
        raise OptionError(f"--config: there is no file {name!r}; presets are {', '.join(_presets())}")
    return preset


def list_presets(options: ConfigListOptions) -> None:
    """Print the name and the first line of each preset."""
    for name, path in _presets().items():
        print(f"{name:<22} {path.read_text(encoding='utf-8').splitlines()[0].removeprefix('#').strip()}")
    print(
        "\nUse one: deixis detect train --config NAME, or refer train. Change one: deixis config show NAME > mine.yaml"
    )


def show_preset(options: ConfigShowOptions) -> None:
    """Print a preset.

    Raises:
        OptionError: there is no such preset.
    """
    presets = _presets()
    name = options.name.removesuffix(".yaml")
    if name not in presets:
        raise OptionError(f"there is no preset {options.name!r}; presets are {', '.join(presets)}")
    print(presets[name].read_text(encoding="utf-8"), end="")


def _presets() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
