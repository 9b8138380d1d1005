"""The attack suite. Add an attack at the end of its file and raise SUITE_VERSION."""

from services.teacher.audit.attacks import pleading, ruining, stuffing
from services.teacher.audit.attacks.base import Attack, Impostor
from services.teacher.audit.attacks.impostors import IMPOSTORS

SUITE_VERSION = "1"  # two reports are comparable where these agree: raise it with any change of an attack or its data
ATTACKS: tuple[Attack, ...] = (*pleading.ATTACKS, *stuffing.ATTACKS, *ruining.ATTACKS)

__all__ = ["ATTACKS", "IMPOSTORS", "SUITE_VERSION", "Attack", "Impostor"]
