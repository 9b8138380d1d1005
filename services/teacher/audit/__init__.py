"""Attacks on a teacher, and what each of them gains. See docs/hard-to-fool.md."""

from services.teacher.audit.attacks import ATTACKS, IMPOSTORS, SUITE_VERSION
from services.teacher.audit.material import BaseStory, stories
from services.teacher.audit.plan import Plan, plan
from services.teacher.audit.render import markdown, table
from services.teacher.audit.report import AttackResult, AuditReport, Estimate, ImpostorResult, summarise
from services.teacher.audit.running import Progress, Score, run, scorer

__all__ = [
    "ATTACKS",
    "IMPOSTORS",
    "SUITE_VERSION",
    "AttackResult",
    "AuditReport",
    "BaseStory",
    "Estimate",
    "ImpostorResult",
    "Plan",
    "Progress",
    "Score",
    "markdown",
    "plan",
    "run",
    "scorer",
    "stories",
    "summarise",
    "table",
]
