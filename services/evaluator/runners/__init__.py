"""One file for each kind of suite: it finds the data, asks the model and hands both to the suite's arithmetic."""

from collections.abc import Mapping

from services.evaluator.bench import Runner
from services.evaluator.runners import aoa, glue, ranking, reading, storytelling
from services.evaluator.suites import aoa as aoa_suite
from services.evaluator.suites import glue as glue_suite
from services.evaluator.suites import reading as reading_suite
from services.evaluator.suites import storytelling as storytelling_suite

RUNNERS: Mapping[str, Runner] = {
    **ranking.RUNNERS,
    reading_suite.NAME: reading.run,
    aoa_suite.NAME: aoa.run,
    glue_suite.NAME: glue.run,
    storytelling_suite.NAME: storytelling.run,
}
