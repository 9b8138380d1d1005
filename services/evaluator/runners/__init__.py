"""One file for each kind of suite: it finds the data, asks the model and hands both to the suite's arithmetic."""

from collections.abc import Mapping

from services.evaluator.bench import Runner
from services.evaluator.runners import glue, ranking, storytelling
from services.evaluator.suites import glue as glue_suite
from services.evaluator.suites import storytelling as storytelling_suite

RUNNERS: Mapping[str, Runner] = {
    **ranking.RUNNERS,
    glue_suite.NAME: glue.run,
    storytelling_suite.NAME: storytelling.run,
}
