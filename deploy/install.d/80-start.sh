# shellcheck shell=sh disable=SC2154
# Starts what does not run or has changed, and waits until every service says that it is healthy.

LONGEST=180   # seconds

unhealthy() {
  compose ps -q | while read -r container; do
    docker inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}} {{.Name}}' "$container"
  done | grep -v -e '^healthy' -e '^running' || true
}

step_check() { :; }

step_apply() {
  $start || return 0
  say "- start"
  compose up -d
  waited=0
  while [ -n "$(unhealthy)" ]; do
    if [ "$waited" -ge "$LONGEST" ]; then
      say "not healthy after $LONGEST s:" >&2
      unhealthy >&2
      say "look at: cd $COMPOSE_DIR && $(find_compose) logs" >&2
      exit 1
    fi
    sleep 2
    waited=$((waited + 2))
  done
  say ""
  say "Running: https://app.$domain"
  say "At the provider, allow the callback address: https://app.$domain/api/auth/oidc/callback"
}
