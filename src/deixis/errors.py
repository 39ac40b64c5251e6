"""Every error deixis raises on purpose.

    DeixisError
    ├── DataError        a file, an annotation or a data set that cannot be used
    │   └── UnreadableImageError   one picture that is damaged or gone
    ├── PromptError      class names that cannot be made into a prompt
    ├── ModelError       a checkpoint that is missing, foreign or incomplete
    ├── OptionError      an option (flag or YAML key) with an impossible value
    └── TrainingError    a run that cannot go on (non-finite values, unwritable output, foreign resume folder)

The commands print the message of a `DeixisError` on one line and exit with code 2; anything else is a bug and
keeps its traceback. A message says what was got, what was wanted, where, and what to do next.
"""


class DeixisError(Exception):
    """Base of every error that deixis raises on purpose."""


class DataError(DeixisError):
    """A file, an annotation or a data set cannot be used."""


class UnreadableImageError(DataError):
    """One picture cannot be read; training goes on without a few of them."""


class PromptError(DeixisError):
    """Class names cannot be made into a prompt."""


class ModelError(DeixisError):
    """A checkpoint is missing, foreign or incomplete."""


class OptionError(DeixisError):
    """An option has an impossible value."""


class TrainingError(DeixisError):
    """A run cannot go on."""


class Terminated(BaseException):
    """The run was asked to stop by SIGTERM and has saved; the command exits with code 143."""
