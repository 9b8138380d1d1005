"""Curves from features to qualities, and the two small models that were fitted over them."""

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

from services.teacher.judges.rules.classes import PACKAGE

LOW, HIGH = 0.10, 0.97
_LOGIT_LOW, _LOGIT_HIGH = math.log(LOW / (1.0 - LOW)), math.log(HIGH / (1.0 - HIGH))


class Curve(NamedTuple):
    """Quality LOW at `low`, HIGH at `high`; falling where low > high. `weight` among its fellows."""

    low: float
    high: float
    weight: float

    def quality(self, value: float) -> float:
        """The feature's quality, in (0, 1): a logistic curve, so that there is a slope everywhere."""
        slope = (_LOGIT_HIGH - _LOGIT_LOW) / (self.high - self.low)
        exponent = max(-40.0, min(40.0, _LOGIT_LOW + slope * (value - self.low)))
        return 1.0 / (1.0 + math.exp(-exponent))


class Fitted(NamedTuple):
    """bias + the sum over features of weight x quality; no weight is negative."""

    bias: float
    curves: Mapping[str, Curve]

    def score(self, values: Mapping[str, float]) -> float:
        """The model's value for one story's measures."""
        return self.bias + sum(c.weight * c.quality(values[name]) for name, c in self.curves.items())


@cache
def fitted(name: str) -> Fitted:
    """data/<name>.json: `thread` (log-odds of one story) or `coherence` (weights that sum to 1)."""
    text = resources.files(PACKAGE).joinpath("data", f"{name}.json").read_text(encoding="utf-8")
    return parse(text)


def parse(text: str) -> Fitted:
    """The model from its JSON."""
    content = json.loads(text)
    return Fitted(content["bias"], {feature: Curve(*curve) for feature, curve in content["curves"].items()})


def render(bias: float, curves: Mapping[str, Curve], digits: int = 4) -> str:
    """The model as JSON, curves without weight left out, the heaviest first."""
    kept = {f: [round(x, digits) for x in c] for f, c in curves.items() if round(c.weight, digits) > 0.0}
    order = sorted(kept.items(), key=lambda item: (-item[1][2], item[0]))
    lines = ",\n".join(f"    {json.dumps(feature)}: {json.dumps(curve)}" for feature, curve in order)
    return f'{{\n  "bias": {round(bias, digits)},\n  "curves": {{\n{lines}\n  }}\n}}\n'
