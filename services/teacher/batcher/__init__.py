"""The micro-batcher: the one way by which HTTP requests and the queue's stories reach a judge.

No timer: a batch is formed when a lane of the judge is free, of what waits then. `turns` says whose stories it takes,
`room` how much may wait, `bisection` what happens to a batch that breaks the judge, and `lanes` holds it all together.
"""

from services.teacher.batcher.lanes import Batcher, BatchObserver, Ticket
from services.teacher.batcher.room import BatchLimits, BusyError

__all__ = ["BatchLimits", "BatchObserver", "Batcher", "BusyError", "Ticket"]
