"""The teacher: judges stories by a rubric, over HTTP and from the queue."""
