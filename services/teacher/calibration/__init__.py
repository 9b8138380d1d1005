"""How far a judge agrees with people and with other judges, and maps that keep the scale of rewards over a swap."""

from services.teacher.calibration.mapped_judge import mapped

__all__ = ["mapped"]
