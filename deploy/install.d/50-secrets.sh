# shellcheck shell=sh disable=SC2154
# Secrets as files. The folder lets nobody but its owner in; the files can be read by the services' own users, to whom
# Compose mounts one each. The API makes its keys itself, in the volume api-data.

step_check() { :; }

step_apply() {
  say "- secrets"
  secrets=$COMPOSE_DIR/secrets
  mkdir -p "$secrets" "$COMPOSE_DIR/own"
  chmod 700 "$secrets"
  if [ ! -s "$secrets/redis-auth" ] || [ ! -s "$secrets/redis-url" ]; then
    password=$(random)
    say "requirepass $password" | put "$secrets/redis-auth" 444
    say "redis://:$password@redis:6379/0" | put "$secrets/redis-url" 444
  fi
  case $secret_file in
    '')  # Compose wants the file even where there is no provider
      [ -e "$secrets/oidc-client-secret" ] || say none | put "$secrets/oidc-client-secret" 444 ;;
    -) put "$secrets/oidc-client-secret" 444 ;;
    *) put "$secrets/oidc-client-secret" 444 <"$secret_file" ;;
  esac
}
