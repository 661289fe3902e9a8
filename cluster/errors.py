"""The kinds of failure that a user meets."""


class InputError(ValueError):
    """Input that cannot be used: configuration, a shard, a request, a checkpoint, another run's directory.

    The message is one sentence that names the file and the field and says what to do. It is raised at the
    border, once; the command line prints it and exits with code 2.
    """


class FarmError(RuntimeError):
    """Work items or workers that kept failing. The message names them; everything else was done and kept."""


class StorageError(OSError):
    """Storage that kept failing. The message names URL, operation and last cause; it may work later."""
