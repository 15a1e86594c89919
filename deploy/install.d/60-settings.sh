# shellcheck shell=sh disable=SC2154
# Compose's .env: the answers, under the names that docker-compose.yml knows. Lines below the mark are yours.

MARK="# --- yours, below ---"

step_check() { :; }

# What stands behind the host in the address that people use.
port_suffix() { [ "$public_port" = 443 ] || say ":$public_port"; }

step_apply() {
  say "- settings"
  file=$COMPOSE_DIR/.env
  own=
  if [ -f "$file" ]; then own=$(awk -v mark="$MARK" 'found; $0 == mark { found = 1 }' "$file"); fi
  {
    say "# Written by deploy/install. What is above the mark is overwritten by it."
    say "COMPOSE_PROJECT_NAME=$project"
    say "C2L_TAG=$tag"
    say "C2L_SUBNET=$subnet"
    say "C2L_HTTP=$http"
    say "C2L_HTTPS=$https"
    say "C2L_HTTPS_PORT=$public_port"
    say "C2L_PORT_SUFFIX=$(port_suffix)"
    say "C2L_DOMAIN=$domain"
    say "C2L_CERT_NAMES=$domain,app.$domain"
    say "C2L_CERT_MODE=$cert_mode"
    say "C2L_CERT_STAGING=$staging"
    if [ "$cert_mode" = own ]; then
      say "C2L_CERT_OWN_CERTIFICATE=/run/own/fullchain.pem"
      say "C2L_CERT_OWN_KEY=/run/own/privkey.pem"
    fi
    say "C2L_EMAIL=$email"
    if [ "$issuer" != none ]; then
      say "C2L_OIDC_ISSUER=$issuer"
      say "C2L_OIDC_CLIENT_ID=$client_id"
      say "C2L_OIDC_NAME=$provider_name"
    fi
    say "C2L_ISOLATION=$isolation"
    say "C2L_API_REPLICAS=$replicas"
    say "C2L_DOCKER_GID=$docker_gid"
    say "$MARK"
    if [ -n "$own" ]; then say "$own"; fi
  } | put "$file" 600
}
