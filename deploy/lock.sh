#!/usr/bin/env bash
# Writes deploy/lock/*.txt anew: the exact versions, with hashes, of what each image installs. Run it after pyproject.toml or
# constraints.txt changed. Needs uv (https://docs.astral.sh/uv/): `pip install uv`, or UV=/path/to/uv.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-uv}

# torch and the CUDA packages that it brings are left out: the Dockerfiles install those first, as CPU or CUDA build.
lock() { # lock <image> <extra>...
  local image=$1 extras=()
  shift
  for extra in "$@"; do extras+=(--extra "$extra"); done
  "$uv" pip compile pyproject.toml "${extras[@]}" --constraint constraints.txt --universal --python-version 3.11 \
    --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet |
    awk '/^[a-z]/ { keep = !/^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==/ } keep' >"deploy/lock/$image.txt"
}

lock teacher teacher
lock teacher-transformers teacher transformers-judge
lock student_trainer trainer
lock evaluator evaluator
grep '^torch==' constraints.txt >deploy/lock/torch.txt
echo 'hatchling' | "$uv" pip compile - --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links --quiet >deploy/lock/build.txt
