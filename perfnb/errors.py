"""What can go wrong, each with one line on how to mend it.

::

    PerfnbError
    ├── WrongUse            an argument, a file or a setting makes no sense
    ├── NotReachable        nothing answers at an address, a pid or a path
    ├── NotPermitted        it is there, but we may not look
    ├── NotInstalled        a program or a package is missing
    ├── NotMeasured         the recording has no such evidence
    └── BadRecording        a recording can't be read
        └── NewerRecording  … because a later perfnb wrote it
"""


class PerfnbError(Exception):
    """Base of every error perfnb raises on purpose: a message and a one-line ``hint`` on how to mend it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class WrongUse(PerfnbError):
    """Raised when an argument, a file or a setting makes no sense."""


class NotReachable(PerfnbError):
    """Raised when nothing answers at an address, a pid or a path."""


class NotPermitted(PerfnbError):
    """Raised when a thing is there but may not be looked at."""


class NotInstalled(PerfnbError):
    """Raised when a program or a package that is needed is missing."""


class NotMeasured(PerfnbError):
    """Raised by a measure when the recording lacks its evidence; ``hint`` says how to get it."""


class BadRecording(PerfnbError):
    """Raised when a recording can't be read."""


class NewerRecording(BadRecording):
    """Raised when a recording was written with a newer schema than this perfnb knows."""
