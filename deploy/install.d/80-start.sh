# shellcheck shell=sh disable=SC2154
# Starts what does not run or has changed, and waits until every service says that it is healthy.

LONGEST=180   # seconds

# Who is not healthy; nothing of what a rollout told to end, whose restart policy it took away.
unhealthy() {
  compose ps -q | while read -r container; do
    docker inspect -f '{{if ne .HostConfig.RestartPolicy.Name "no"}}{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}} {{.Name}}{{end}}' "$container"
  done | grep -v -e '^healthy' -e '^running' -e '^$' || true
}

step_check() { :; }

# How many nginx-proxy run: two, while one of them only ends what it has begun, which `up` must not mistake for too many.
doors() {
  docker ps -q --filter "label=com.docker.compose.project=$project" \
    --filter label=com.docker.compose.service=nginx-proxy 2>/dev/null | wc -l
}

# What runs is replaced one by one, with no answer cut; what does not is started.
start_or_replace() {
  running=$(doors)
  if $at_once || [ "$running" -eq 0 ]; then
    compose up -d
  elif "$HERE/rollout" --help >/dev/null 2>&1; then
    compose up -d --no-recreate --scale "nginx-proxy=$running"
    "$HERE/rollout" all || {
      say "Some services are as they were. Mend it and run this again, or replace all at once: deploy/install --at-once" >&2
      exit 1
    }
  else
    warn "without Python 3.11 what changed is replaced at once, which ends running answers"
    compose up -d
  fi
}

step_apply() {
  $start || return 0
  say "- start"
  start_or_replace
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
  say "Running: https://app.$domain$(port_suffix)"
  if [ "$issuer" = none ]; then
    say "A link that signs you in: cd $COMPOSE_DIR && $(find_compose) exec api-backend cloudtolocalllm sign-in-link"
  else
    say "At the provider, allow the callback address: https://app.$domain$(port_suffix)/api/auth/oidc/callback"
  fi
}
