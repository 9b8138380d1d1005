#!/usr/bin/env bash
# Tries the containers for real: builds the images, runs the loop in them, scales, swaps, kills and stops, and says what it saw.
#
#   deploy/verify-compose.sh            every part
#   deploy/verify-compose.sh PART...    config, images, loop, scale, swap, chaos, stop, observe; each builds what it lacks
# Only by name: tgi, vllm (5 GB) and cuda (30 GB of disk), the profiles for GPUs without one (see verify/gpu.sh).
#
# Uses the Docker engine that answers, else starts one with its own data (root, Debian). Where no registry can be reached, the
# images that Dockerfiles and compose.yaml name become stand-ins from this machine's package mirror (see verify/engine.sh);
# Dockerfiles and compose.yaml are used as they are. Everything runs in a compose project of its own, removed at the end.
# FABULA_VERIFY_STATE: folder of the engine's data and logs, kept for the next time (default: /var/tmp/fabula-verify).
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd)
state=${FABULA_VERIFY_STATE:-/var/tmp/fabula-verify}
base=python:3.11-slim-bookworm
foreign=(valkey/valkey:8-bookworm haproxy:3.0-bookworm prom/prometheus:v3.5.0)
project=fabula-verify
failed=0

say() { printf '%s  %s\n' "$(date -u +%H:%M:%S)" "$*"; }
die() { say "ERROR: $*" >&2; exit 1; }
ok() { say "ok    $*"; }
bad() { say "FAIL  $*"; failed=1; }
check() { # check <what> <command>...
  local what=$1
  shift
  if "$@"; then ok "$what"; else bad "$what"; fi
}

# shellcheck source=deploy/verify/engine.sh
. "$repo/deploy/verify/engine.sh"
# shellcheck source=deploy/verify/parts.sh
. "$repo/deploy/verify/parts.sh"
# shellcheck source=deploy/verify/gpu.sh
. "$repo/deploy/verify/gpu.sh"

clean_up() {
  status=$?
  trap - EXIT INT TERM
  # shellcheck disable=SC2046  # a word a process
  kill $(jobs -p | grep -vx "${engine:-}") 2>/dev/null || true
  if docker info >/dev/null 2>&1; then
    [ "$status" -eq 0 ] || compose logs --tail 15 2>/dev/null | tail -60 >&2 || true
    compose "${every_profile[@]}" down --volumes --remove-orphans --timeout 5 >/dev/null 2>&1 || true
  fi
  stop_engine
  rm -rf "$state/secrets"
  exit "$status"
}

# A function, so that the file is read whole before anything of it is done.
main() {
  mkdir -p "$state/secrets"
  trap clean_up EXIT
  trap 'exit 130' INT TERM

  cd "$repo"
  start_engine
  if docker compose version >/dev/null 2>&1; then composer=(docker compose); else composer=(docker-compose); fi
  export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1 COMPOSE_PROJECT_NAME=$project BUILDKIT_PROGRESS=plain
  # A password of this session's own, and ports that nothing else is likely to have.
  head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$state/secrets/redis_password"
  export FABULA_REDIS_PASSWORD_FILE=$state/secrets/redis_password FABULA_TEACHER_PORT=18001
  export FABULA_EVALUATOR_PORT=18002 FABULA_PROMETHEUS_PORT=19090
  export FABULA_PRESET=smoke
  unset COMPOSE_PROFILES # .env has it
  base_images
  # Wheels that pip is told of here are enough; else the index that the Dockerfiles name.
  if docker image inspect fabula-stand-in >/dev/null 2>&1 && [ -n "$(pip_setting find-links)" ]; then export FABULA_TORCH_INDEX=; fi

  parts=("$@")
  [ ${#parts[@]} -gt 0 ] || parts=(config images loop scale swap chaos stop observe)
  for part in "${parts[@]}"; do
    say "== $part"
    started=$SECONDS
    "part_$part"
    say "== $part took $((SECONDS - started)) s"
  done
  [ "$failed" -eq 0 ] || die "something above failed"
  say "all of it held: ${parts[*]}"
}

main "$@"
