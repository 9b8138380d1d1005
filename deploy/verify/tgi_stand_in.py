"""A server that speaks TGI's wire format on any model folder, started by the arguments that compose.yaml gives TGI."""

import argparse
from pathlib import Path

import uvicorn

from tests.wire.controls import Controlled, Controls
from tests.wire.engine import Engine
from tests.wire.tgi import create_tgi

parser = argparse.ArgumentParser()
parser.add_argument("--model-id", type=Path, required=True)
parser.add_argument("--port", type=int, required=True)
asked = parser.parse_args()
controls = Controls()
uvicorn.run(Controlled(create_tgi(Engine(asked.model_id), controls), controls), host="0.0.0.0", port=asked.port)  # noqa: S104
