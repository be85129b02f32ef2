"""What a submission may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a submission may use; times in seconds, memory and file sizes in bytes.

    `memory` holds for each process and for all of them together.
    """

    cell_seconds: float = 30.0
    call_seconds: float = 10.0
    total_seconds: float = 300.0
    memory: int = 4 * 2**30
    folder_size: int = 256 * 2**20
    file_size: int = 100 * 2**20
    open_files: int = 256
    processes: int = 64

    def of_resources(self) -> list[int]:
        """Return the limits that the kernel keeps, in the child's order."""
        seconds = int(self.total_seconds) + 1
        return [self.memory, seconds, self.file_size, self.open_files, self.processes]
