# shellcheck shell=sh disable=SC2154
# Compose's .env: the answers, under the names that docker-compose.yml knows. Lines below the mark are yours.

MARK="# --- yours, below ---"

step_check() { :; }

step_apply() {
  say "- settings"
  file=$COMPOSE_DIR/.env
  own=
  if [ -f "$file" ]; then own=$(sed "1,/^$MARK\$/d" "$file"); fi
  {
    say "# Written by deploy/install. What is above the mark is overwritten by it."
    say "COMPOSE_PROJECT_NAME=cloudtolocalllm"
    say "C2L_DOMAIN=$domain"
    say "C2L_CERT_NAMES=$domain,app.$domain"
    say "C2L_CERT_MODE=$cert_mode"
    say "C2L_CERT_STAGING=$staging"
    if [ "$cert_mode" = own ]; then
      say "C2L_CERT_OWN_CERTIFICATE=/run/own/fullchain.pem"
      say "C2L_CERT_OWN_KEY=/run/own/privkey.pem"
    fi
    say "C2L_EMAIL=$email"
    say "C2L_OIDC_ISSUER=$issuer"
    say "C2L_OIDC_CLIENT_ID=$client_id"
    say "C2L_OIDC_NAME=$provider_name"
    say "C2L_ISOLATION=$isolation"
    if [ "$isolation" = network ]; then
      joint=_   # between the words of a container's name: Compose 1.29 and v2 differ
      if [ "$(find_compose)" = "docker compose" ]; then joint=-; fi
      prefix=cloudtolocalllm$joint
      say "C2L_ATTACH=${prefix}nginx-proxy${joint}1,${prefix}streaming-proxy-manager${joint}1"
    fi
    say "C2L_API_REPLICAS=$replicas"
    say "C2L_DOCKER_GID=$docker_gid"
    say "$MARK"
    if [ -n "$own" ]; then say "$own"; fi
  } | put "$file" 600
}
