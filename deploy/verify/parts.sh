# What deploy/verify-compose.sh tries, a function a part.
# shellcheck shell=bash disable=SC2154

score='{"stories":["Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."]}'

every_profile=(--profile rules --profile gpu --profile tgi --profile vllm --profile observability)

compose() { "${composer[@]}" --project-directory "$repo" --file "${compose_file:-$repo/compose.yaml}" "$@"; }
# In the background and waited for, so that Ctrl-C is heeded at once.
quiet() {
  "$@" >"$state/last.log" 2>&1 &
  if ! wait $!; then
    tail -25 "$state/last.log" >&2
    die "failed: $*"
  fi
}
build() { quiet compose build; }
fresh() { quiet compose "${every_profile[@]}" down --volumes --remove-orphans --timeout 5; }
container() { docker ps --all --quiet --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
fetch() { python3 "$repo/deploy/verify/fetch.py" "$@"; }
in_runs() { docker run --rm --interactive --volume "${project}_runs:/runs" --entrypoint python "fabula-student-trainer:${FABULA_TORCH:-cpu}" - "$@"; }

# Wait until the trainer's container has ended by itself; its status.
trainer_status() { # trainer_status <service>
  local id
  id=$(container "$1")
  for _ in $(seq 1200); do
    # Between two tries of a restart policy a container is `restarting`, not `exited`.
    if [ "$(docker inspect --format '{{.State.Status}}' "$id")" = exited ]; then
      docker inspect --format '{{.State.ExitCode}}' "$id"
      return
    fi
    sleep 1
  done
  echo "still running after 20 minutes"
}

part_config() {
  local profile
  for profile in rules gpu tgi vllm observability; do
    check "compose.yaml is valid with --profile $profile" quiet compose --profile "$profile" config
  done
  echo FABULA_MAX_STORIES=7 >"$state/more.env"
  check "services get what FABULA_ENV_FILE says" further_settings
}

further_settings() { FABULA_ENV_FILE=$state/more.env compose --profile rules config | grep -E "FABULA_MAX_STORIES: .?7" >/dev/null; }

part_images() {
  build
  local image
  docker images --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -E "^(fabula-|$base)" | sort | while read -r image; do say "      $image"; done
  for image in fabula-teacher:none fabula-student-trainer:cpu fabula-evaluator:cpu; do
    say "      $image on top of its base: $(layers "$image")"
    check "$image: contents" contents "$image"
    if [ -x "$repo/.venv/bin/python" ]; then
      check "$image: packages and licences are listed, none refused" quiet make -C "$repo" sbom IMAGE="$image"
      say "      $(grep ' Debian packages' "$state/last.log")"
    fi
  done
}

contents() {
  docker run --rm --interactive --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --network none \
    --entrypoint python "$1" - "$1" <"$repo/deploy/verify/contents.py"
}

layers() { docker history --format '{{.Size}} {{.CreatedBy}}' "$1" | grep -E 'COPY' | sed 's/ .*--from=.*//; s/ COPY \([^ ]*\).*/ \1/' | paste -sd ' '; }

part_loop() {
  build && fresh
  quiet compose up --detach
  local status
  status=$(trainer_status student_trainer)
  docker logs "$(container student_trainer)" 2>&1 | tail -8
  check "the loop ran to its end, status $status" [ "$status" = 0 ]
  check "the page answers" fetch "http://127.0.0.1:$FABULA_EVALUATOR_PORT/" --holds '<html'
  check "curl's request to the scoring API is judged" fetch "http://127.0.0.1:$FABULA_TEACHER_PORT/score" --data "$score" --holds '"backend":"rules"'
  check "verdicts are all there, by one worker" in_runs smoke- --workers 1 --backend rules <"$repo/deploy/verify/stories.py"
  check "containers are restricted, and no secret stands in their settings" restricted
  quiet compose up --detach
  status=$(trainer_status student_trainer)
  check "up again finds the run done, status $status" says_done
}

says_done() { docker logs --since 2m "$(container student_trainer)" 2>&1 | grep -F 'Pretraining is done already' >/dev/null; }

restricted() {
  local id wrong=0
  for id in $(docker ps --all --quiet --filter "label=com.docker.compose.project=$project"); do
    docker inspect "$id" | python3 "$repo/deploy/verify/restricted.py" "$FABULA_REDIS_PASSWORD_FILE" || wrong=1
  done
  return $wrong
}

part_scale() {
  build && fresh
  FABULA_RUN=scaled quiet compose up --detach --scale teacher=3
  local status
  status=$(FABULA_RUN=scaled trainer_status student_trainer)
  check "with --scale teacher=3 the loop ran to its end, status $status" [ "$status" = 0 ]
  check "stories are shared by the teachers" in_runs scaled --workers 3 --backend rules <"$repo/deploy/verify/stories.py"
  check "the scoring API still has one address" fetch "http://127.0.0.1:$FABULA_TEACHER_PORT/score" --data "$score" --holds '"backend":"rules"'
}

part_swap() {
  build && fresh
  export FABULA_TEACHER=transformers:/models/tiny FABULA_TEACHER_TORCH=cpu FABULA_RUN=swapped
  export FABULA_SET="pretrain.word_budget=20000 interact.word_budget=160"
  build
  say "      $(docker images --format '{{.Repository}}:{{.Tag}} {{.Size}}' fabula-teacher:cpu)"
  # A tiny model with random weights: what it says means nothing, but it judges by the same path as a large one.
  quiet compose up --detach queue
  quiet compose run --rm --no-deps --volume "$repo/tests:/verify/tests:ro" --entrypoint python teacher -c \
    "import sys, pathlib; sys.path.insert(0, '/verify'); from tests.tiny_models import make_tiny_llama; make_tiny_llama(pathlib.Path('/models/tiny'))"
  quiet compose up --detach
  local status
  status=$(trainer_status student_trainer)
  check "FABULA_TEACHER=$FABULA_TEACHER: the loop ran to its end, status $status" [ "$status" = 0 ]
  check "verdicts are the other teacher's" in_runs swapped --workers 1 --backend transformers <"$repo/deploy/verify/stories.py"
  unset FABULA_TEACHER FABULA_TEACHER_TORCH FABULA_RUN FABULA_SET
}

updates() { docker exec "$(container evaluator)" sh -c "cat /runs/$1/metrics.jsonl 2>/dev/null" | grep -c '"score_mean"' || true; }

until_pretraining() {
  for _ in $(seq 600); do
    if docker logs "$(container student_trainer)" 2>&1 | grep -F '  read ' >/dev/null; then return; fi # not -q: pipefail
    sleep 0.2
  done
  die "the trainer does not begin to read"
}

until_update() { # until_update <run> <number>
  local seen
  for _ in $(seq 3000); do
    seen=$(updates "$1")
    if [ "${seen:-0}" -ge "$2" ]; then return; fi
    sleep 0.1
  done
  die "run $1 does not reach update $2"
}

# The process, not `docker kill`: what a user kills by that is not started again.
kill_process() { kill -9 "$(docker inspect --format '{{.State.Pid}}' "$(container "$1" | head -1)")"; }

part_chaos() {
  build && fresh
  export FABULA_SET="interact.word_budget=1100 interact.checkpoint_every_words=300" # 15 updates
  FABULA_RUN=untouched quiet compose up --detach
  local status
  status=$(trainer_status student_trainer)
  check "a run that nobody touches ends, status $status" [ "$status" = 0 ]
  # What was judged is remembered in the queue's server; the second run is to be judged anew.
  # shellcheck disable=SC2016  # for the shell in the container
  docker exec "$(container queue)" sh -c 'REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli flushall' >/dev/null
  export FABULA_RUN=chaos
  quiet compose up --detach
  until_pretraining
  say "      pretraining: the trainer is killed"
  kill_process student_trainer
  until_update chaos 2
  say "      update $(updates chaos): the teacher is killed"
  kill_process teacher
  until_update chaos 4
  say "      update $(updates chaos): the queue is restarted"
  docker restart "$(container queue)" >/dev/null
  until_update chaos 7
  say "      update $(updates chaos): the trainer is killed"
  kill_process student_trainer
  until_update chaos 10
  say "      update $(updates chaos): the trainer's container is removed and another one started"
  docker rm --force "$(container student_trainer)" >/dev/null
  quiet compose up --detach
  status=$(trainer_status student_trainer)
  check "the run that all this befell ends, status $status" [ "$status" = 0 ]
  check "and as the untouched one: weights, ledger, stories" in_runs untouched chaos <"$repo/deploy/verify/same.py"
  unset FABULA_SET FABULA_RUN
}

part_stop() {
  build && fresh
  export FABULA_RUN=stopped FABULA_SET="pretrain.word_budget=2000000"
  quiet compose up --detach
  until_pretraining
  local service grace id code began
  while read -r service grace; do
    id=$(container "$service")
    began=$(date +%s%N)
    docker stop --time "$grace" "$id" >/dev/null
    code=$(docker inspect --format '{{.State.ExitCode}}' "$id")
    check "$service: SIGTERM ends it in $((($(date +%s%N) - began) / 1000000)) ms of $grace s, status $code" \
      grep -qx "$code" <<<"0
130
143"
  done <<<"student_trainer 120
evaluator 45
teacher 60
gateway 15
queue 30"
  unset FABULA_RUN FABULA_SET
}

part_observe() {
  build && fresh
  FABULA_RUN=observed quiet compose --profile rules --profile observability up --detach --scale teacher=2 \
    queue gateway evaluator teacher student_trainer prometheus
  local url="http://127.0.0.1:$FABULA_PROMETHEUS_PORT/api/v1/query?query="
  check "Prometheus finds both teachers and the evaluator" \
    fetch "${url}count(up%7Bjob%3D~%22teacher%7Cevaluator%22%7D%3D%3D1)" --holds '"3"]' --tries 60
  check "and has loaded its rules" fetch "http://127.0.0.1:$FABULA_PROMETHEUS_PORT/api/v1/rules" --holds FabulaNoTeacher
  FABULA_RUN=observed quiet trainer_status student_trainer
  check "and counts the 120 stories of the run, and the canaries" \
    fetch "${url}sum(fabula_teacher_stories_total%7Bsource%3D%22queue%22%7D)%3E%3Dbool%20120" --holds '"1"]' --tries 60
  check "containers are restricted, Prometheus' too" restricted
}
