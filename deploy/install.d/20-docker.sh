# shellcheck shell=sh disable=SC2154
# The engine and Compose, of versions that are known to work. They are not installed from here.

# Tells whether version $1 is at least $2 (both MAJOR.MINOR...).
at_least() {
  have_major=${1%%.*}; rest=${1#*.}; have_minor=${rest%%.*}
  want_major=${2%%.*}; want_minor=${2#*.}
  case $have_major$have_minor in '' | *[!0-9]*) return 1 ;; esac
  [ "$have_major" -gt "$want_major" ] || { [ "$have_major" -eq "$want_major" ] && [ "$have_minor" -ge "$want_minor" ]; }
}

step_check() {
  say "- Docker"
  if ! command -v docker >/dev/null 2>&1; then
    fault "Docker: https://docs.docker.com/engine/install/"
    return
  fi
  engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || engine=
  if [ -z "$engine" ]; then
    fault "Docker to run and to let you in: start it, and be root or in the group docker"
    return
  fi
  at_least "$engine" 20.10 || fault "Docker 20.10 or newer, got $engine"
  words=$(find_compose)
  [ -n "$words" ] || { fault "Docker Compose: https://docs.docker.com/compose/install/"; return; }
  version=$($words version --short 2>/dev/null || say 0.0)
  at_least "${version#v}" 1.29 || fault "Compose 1.29 or newer, got $version"
  docker_gid=$(stat -c %g "$ROOT/var/run/docker.sock" 2>/dev/null) || docker_gid=
  [ -n "$docker_gid" ] || fault "Docker's socket at /var/run/docker.sock"
  check_live_restore
}

# Without it a restart of the engine, as in each update of its package, ends every container and so every answer.
check_live_restore() {
  found=$(docker info --format '{{.LiveRestoreEnabled}} {{.Swarm.LocalNodeState}}' 2>/dev/null) || found=
  case $found in
    'false active') warn "Docker in swarm mode has no live-restore: updating Docker will end running answers" ;;
    false*)
      warn "updating or restarting Docker will end running answers. To keep them, write { \"live-restore\": true } into"
      warn "/etc/docker/daemon.json (beside what it has), then: systemctl reload docker" ;;
  esac
}

step_apply() { :; }
