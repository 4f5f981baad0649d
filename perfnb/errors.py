"""What can go wrong, each with one line on how to mend it.

::

    PerfnbError
    ├── WrongUse            an argument, a file or a setting makes no sense
    ├── NotReachable        nothing answers at an address, a pid or a path
    ├── NotPermitted        it is there, but we may not look
    ├── NotInstalled        a program or a package is missing
    ├── NotMeasured         the recording has no such evidence
    ├── NotWritable         a recording can't be written: disk full, folder not ours (an OSError too)
    └── BadRecording        a recording can't be read
        └── NewerRecording  … because a later perfnb wrote it
"""

import errno


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


class NotWritable(PerfnbError, OSError):
    """Raised when a recording can't be written; an OSError too, with the system's ``errno``."""

    @classmethod
    def because(cls, error: Exception, path: object) -> "NotWritable":
        """Return the error that tells what to do about ``error``, which came of writing to ``path``."""
        number = getattr(error, "errno", None)
        full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        hint = "free some space, or record elsewhere: --out DIR" if full else "record where you may write: --out DIR"
        made = cls(f"{path} can't be written: {reason}", hint=hint)
        made.errno = number
        return made


class BadRecording(PerfnbError):
    """Raised when a recording can't be read."""


class NewerRecording(BadRecording):
    """Raised when a recording was written with a newer schema than this perfnb knows."""
