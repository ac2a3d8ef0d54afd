"""What an error of writing says, and what to do about it."""

from __future__ import annotations

import errno


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk, or a user's share of it, has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def explain_write_error(error: OSError) -> str:
    """Return the reason, and the remedy if there is one."""
    reason = error.strerror or str(error)
    return f"{reason}: free space there" if is_disk_full(error) else reason
