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

# The container that holds the published ports, also one that does not run and would be started; empty for none.
holder() {
  docker ps -aq --filter "label=com.docker.compose.project=$project" \
    --filter label=com.docker.compose.service=ports 2>/dev/null | head -n 1
}

# Replaces `ports` when it publishes other ports than .env says, for a port that was taken away from the public must not
# stay open. It holds every connection, so nothing less does that, and for another reason it is left to a quiet hour.
move_ports() {
  container=$(holder)
  [ -n "$container" ] || return 0
  hash=$(docker inspect -f '{{index .Config.Labels "com.docker.compose.config-hash"}}' "$container")
  [ "$(compose config --hash ports)" != "ports $hash" ] || return 0
  published=$(docker inspect \
    -f '{{range .HostConfig.PortBindings}}{{range .}} {{.HostIp}}:{{.HostPort}} {{end}}{{end}}' "$container")
  for place in "$(installed C2L_HTTP)" "$(installed C2L_HTTPS)"; do
    case $place in *:*) ;; *) place=:$place ;; esac
    case $published in *" $place "*) continue ;; esac
    warn "other ports: every connection is cut once; bridges come back by themselves"
    compose up -d --no-deps ports
    return
  done
  warn "the service ports is not as it would be made now. Replacing it cuts every connection, so at a quiet hour:"
  warn "cd $COMPOSE_DIR && $(find_compose) up -d --no-deps ports"
}

# What runs is replaced one by one, with no answer cut; what does not is started.
start_or_replace() {
  running=$(doors)
  if $at_once || [ "$running" -eq 0 ]; then
    compose up -d
  elif "$HERE/rollout" --help >/dev/null 2>&1; then
    move_ports
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
