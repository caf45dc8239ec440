"""Everything that charrnn says no to, and the exit code that goes with it."""


class CharRNNError(Exception):
    """A failure that one line explains: what, where, what to do. Its kinds set the exit code of the command."""

    exit_code = 1
    placed = False  # whether the line itself says which of several processes it is about


class UsageError(CharRNNError):
    """Options out of range, in conflict, or asking for what is not there."""

    exit_code = 2


class DataError(CharRNNError):
    """A text that is missing, empty, or not text."""

    exit_code = 2


class CheckpointError(CharRNNError):
    """A run that cannot be read, or that does not fit what was asked of it."""

    exit_code = 2


class TrainingError(CharRNNError):
    """Training diverged."""

    exit_code = 3


class LockedError(CharRNNError):
    """Another process trains in the same folder."""

    exit_code = 4


class StorageError(CharRNNError):
    """The disk is full, read-only or failing."""

    exit_code = 5


class LostError(CharRNNError):
    """Another process of the run is gone, or hangs."""

    exit_code = 6


class ToldError(CharRNNError):
    """Another process of the run has said why it ends, with this exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code
