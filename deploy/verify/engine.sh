# A Docker engine to verify with, for deploy/verify-compose.sh: the one at hand, else one of our own, and the images that
# compose.yaml builds on, from a registry or, where none can be reached, made from this machine's package mirror.
# shellcheck shell=bash disable=SC2154  # verify-compose.sh sets state, repo, base and foreign

start_engine() {
  if docker info >/dev/null 2>&1; then
    say "using the Docker engine at hand"
    return
  fi
  [ "$(id -u)" -eq 0 ] || die "no Docker engine answers, and to start one takes root"
  # Another client may come first on the PATH; dockerd's own goes with it.
  export PATH=/usr/sbin:/usr/bin:$PATH
  command -v dockerd >/dev/null && command -v docker-compose >/dev/null ||
    apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends docker.io docker-compose >/dev/null
  mkdir -p "$state/docker"
  export DOCKER_HOST=unix://$state/docker.sock
  dockerd --data-root "$state/docker" --exec-root "$state/exec" --pidfile "$state/dockerd.pid" --host "$DOCKER_HOST" \
    >"$state/dockerd.log" 2>&1 &
  engine=$!
  for _ in $(seq 120); do
    docker info >/dev/null 2>&1 && { say "started an engine of our own, data in $state/docker"; return; }
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.5
  done
  tail -5 "$state/dockerd.log" >&2
  die "dockerd does not come up; see $state/dockerd.log"
}

stop_engine() {
  [ -n "${engine:-}" ] || return 0
  kill "$engine" 2>/dev/null || true
  wait "$engine" 2>/dev/null || true
  engine=
}

# The images that a Dockerfile or a service of the tried profiles names.
base_images() {
  local image missing=()
  for image in "$base" "${foreign[@]}"; do
    docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image" >/dev/null 2>&1 || missing+=("$image")
  done
  [ ${#missing[@]} -gt 0 ] || { say "images are here: $base ${foreign[*]}"; return; }
  say "no registry: ${missing[*]} become stand-ins made from this machine's package mirror"
  for image in "${missing[@]}"; do
    if [ "$image" = "$base" ]; then
      stand_in_python && docker tag fabula-stand-in "$image"
    else
      stand_in_servers && docker tag fabula-stand-in-servers "$image"
    fi
  done
}

# A release of Debian from this machine's mirror as an image.
debian() { # debian <release> <packages> <tag>
  command -v debootstrap >/dev/null ||
    apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends debootstrap >/dev/null
  local root=$state/rootfs mirror
  # shellcheck disable=SC2016  # apt's own variables
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(SUITE)' 2>/dev/null | awk '$2 !~ /-/ { print $1; exit }')
  [ -n "$mirror" ] || die "apt names no mirror"
  rm -rf "$root"
  say "debootstrap $1 (a minute) ..."
  debootstrap --variant=minbase --include="$2" "$1" "$root" "$mirror" \
    >"$state/debootstrap.log" 2>&1 || { tail -5 "$state/debootstrap.log" >&2; die "debootstrap failed"; }
  as_official_image "$root"
  tar -C "$root" -c . | docker import --change 'CMD ["python"]' - "$3" >/dev/null
  rm -rf "$root"
}

# Debian 12's Python with pip, as the official image has it.
stand_in_python() {
  docker image inspect fabula-stand-in >/dev/null 2>&1 || debian bookworm ca-certificates,python3,python3-pip fabula-stand-in
}

# Debian 13's Valkey, HAProxy and Prometheus, under the names, users and folders that the official images have.
stand_in_servers() {
  docker image inspect fabula-stand-in-servers >/dev/null 2>&1 && return
  debian trixie ca-certificates fabula-stand-in-trixie
  say "installing valkey-server, haproxy and prometheus into a second stand-in ..."
  mkdir -p "$state/servers"
  cat >"$state/servers/Dockerfile" <<'DOCKERFILE'
FROM fabula-stand-in-trixie
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends valkey-server haproxy prometheus \
 && install -d -o 999 -g 999 /data && install -d -o 65534 -g 65534 /prometheus && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["prometheus"]
DOCKERFILE
  quiet docker build --tag fabula-stand-in-servers "$state/servers"
}

# What the official image has and Debian's packages have not; and this machine's way to packages.
as_official_image() {
  local root=$1
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  # This machine's certificates and local wheels: in the stand-in, since Dockerfiles know nothing of them.
  local bundle=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}} folder key value
  if [ -f "$bundle" ]; then install -D -m 644 "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"; fi
  if [ ! -e "$root/usr/bin/python3" ]; then return; fi
  ln -sf python3 "$root/usr/bin/python"
  rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
  {
    echo '[global]'
    echo 'cert = /etc/ssl/certs/ca-certificates.crt'
    for key in index-url find-links timeout; do
      value=$(pip_setting "$key")
      if [ -n "$value" ]; then echo "$key = $value"; fi
    done
  } >"$root/etc/pip.conf"
  for folder in $(pip_setting find-links); do
    if [ -d "$folder" ]; then mkdir -p "$root$folder" && cp "$folder"/*.whl "$root$folder/"; fi
  done
}

pip_setting() { python3 -m pip config list 2>/dev/null | sed -n "s/^[^.]*\.$1='\(.*\)'\$/\1/p" | head -1; }
