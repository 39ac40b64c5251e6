"""All errors that deixis raises on purpose.

    DeixisError
    ├── DataError        a file, an annotation or a data set that cannot be used
    │   ├── UnreadableImageError   one image that is damaged or missing
    │   └── NoSuchSplitError       a part that a data set does not have
    ├── PromptError      class names that cannot be made into a prompt
    ├── ModelError       a checkpoint that is missing, incomplete or of another kind
    ├── OptionError      an option (flag or YAML key) with an invalid value
    └── TrainingError    a run that cannot continue (non-finite values, unwritable output, another run's folder)

The commands print the message of a `DeixisError` on one line and exit with code 2; any other error is a bug and keeps
its traceback. A message says what is wrong and where, the value, what is allowed, and what to do next.
"""


class DeixisError(Exception):
    """Base of every error that deixis raises on purpose."""


class DataError(DeixisError):
    """A file, an annotation or a data set cannot be used."""


class UnreadableImageError(DataError):
    """One image cannot be read; training continues without a few of them."""


class NoSuchSplitError(DataError):
    """A data set does not have the split that was asked for."""


class PromptError(DeixisError):
    """Class names cannot be made into a prompt."""


class ModelError(DeixisError):
    """A checkpoint is missing, incomplete or of another kind."""


class OptionError(DeixisError):
    """An option has an invalid value."""


class TrainingError(DeixisError):
    """A run cannot continue."""


class Terminated(BaseException):
    """The run received SIGTERM and has saved; the command exits with code 143."""
