# shellcheck shell=sh disable=SC2154
# Enough memory and disk.

MEMORY_KB=1800000   # a machine that is sold with 2 GB; the services' limits are above what they use
DISK_KB=5000000     # images, their build, and logs

step_check() {
  say "- memory and disk"
  memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' "$ROOT/proc/meminfo" 2>/dev/null) || memory=
  [ "${memory:-0}" -ge "$MEMORY_KB" ] || fault "2 GB of memory, got $((${memory:-0} / 1000)) MB"
  folder=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null) || folder=   # its images and volumes lie there
  [ -d "$folder" ] || folder=$HERE
  disk=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
  [ "${disk:-0}" -ge "$DISK_KB" ] || fault "5 GB free where $folder is, got $((${disk:-0} / 1000)) MB"
  [ -w "$COMPOSE_DIR" ] || fault "to be allowed to write to $COMPOSE_DIR"
}

step_apply() { :; }
