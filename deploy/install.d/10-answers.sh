# shellcheck shell=sh disable=SC2154
# What was answered: checked to the character, since it goes into Compose's .env; kept for the next time.

step_check() {
  say "- answers"
  case $domain in
    '' | *[!a-z0-9.-]* | .* | -* | *. | *..* | *-.* | *.-*) fault "a domain such as example.org (others than ASCII as xn--...)" ;;
    *.*) ;;
    *) fault "a domain with a dot" ;;
  esac
  [ "${#domain}" -le 200 ] || fault "a domain of at most 200 characters"
  case $email in
    '') [ "$cert_mode" != acme ] || fault "an e-mail address: --email" ;;
    *[!A-Za-z0-9.@_+-]* | *@*@* | @* | *@) fault "an e-mail address" ;;
    *@*.*) ;;
    *) fault "an e-mail address" ;;
  esac
  case $issuer in
    '') fault "an OpenID provider, by which people sign in: --issuer (or none: you alone, by links made here)" ;;
    none) ;;
    *[!A-Za-z0-9.:/_~-]*) fault "an issuer without query or blanks" ;;
    https://?*) ;;
    *) fault "an issuer that begins with https://" ;;
  esac
  if [ "$issuer" != none ]; then
    case $client_id in '' | *[!A-Za-z0-9._~-]*) fault "the client id that the provider gave: --client-id" ;; esac
  fi
  case $provider_name in *[!A-Za-z0-9\ ._-]*) fault "a provider's name of letters, digits, blanks, dots and dashes" ;; esac
  case $cert_mode in acme | own | local-ca) ;; *) fault "--cert-mode acme, own or local-ca" ;; esac
  for name in staging skip_dns; do
    case $(value_of "$name") in true | false) ;; *) fault "$name to be true or false" ;; esac
  done
  case $isolation in socket | network) ;; *) fault "--isolation socket or network" ;; esac
  case $replicas in [1-9] | [1-5][0-9]) ;; *) fault "--replicas 1 to 59" ;; esac
  if [ "$secret_file" != - ] && [ -n "$secret_file" ] && [ ! -s "$secret_file" ]; then
    fault "the client's secret in the file $secret_file"
  fi
  if [ "$issuer" != none ] && [ -z "$secret_file" ] && [ ! -s "$COMPOSE_DIR/secrets/oidc-client-secret" ]; then
    fault "the client's secret that the provider gave: --client-secret-file"
  fi
  if [ "$cert_mode" = own ]; then
    for file in fullchain.pem privkey.pem; do
      [ -s "$COMPOSE_DIR/own/$file" ] || fault "your certificate in $COMPOSE_DIR/own/$file"
    done
  fi
  check_place
}

# Where it lies on this machine: what two platforms must not share.
check_place() {
  case $subnet in
    10.[0-9] | 10.[1-9][0-9] | 10.1[0-9][0-9] | 10.2[0-4][0-9] | 10.25[0-5]) ;;
    172.1[6-9] | 172.2[0-9] | 172.3[01] | 192.168) ;;
    *) fault "--subnet of private addresses, two numbers such as 172.20 or 10.77" ;;
  esac
  for place in "$http" "$https"; do
    is_place "$place" || fault "--http and --https [ADDRESS:]PORT such as 127.0.0.1:8443, got $place"
  done
  is_port "$public_port" || fault "--public-port from 1 to 65535"
  case $project in
    '' | *[!a-z0-9_-]* | [_-]*) fault "--project of small letters, digits, dashes and low lines" ;;
  esac
  case $tag in '' | *[!A-Za-z0-9_.-]* | [.-]*) fault "--tag of letters, digits, dots and dashes" ;; esac
  if [ "${#project}" -gt 40 ] || [ "${#tag}" -gt 128 ]; then
    fault "a shorter --project (40 characters) or --tag (128)"
  fi
  before=$(installed COMPOSE_PROJECT_NAME)
  if [ -n "$before" ] && [ "$before" != "$project" ]; then
    fault "--project to stay $before here; a second platform needs a copy of its own of this tree"
  fi
}

is_port() {
  case $1 in '' | 0* | *[!0-9]* | ??????*) return 1 ;; esac
  [ "$1" -le 65535 ]
}

is_place() {
  is_port "${1##*:}" || return 1
  case $1 in *:*) ;; *) return 0 ;; esac
  case ${1%:*} in '' | *[!0-9.]*) return 1 ;; *.*.*.*) ;; *) return 1 ;; esac
}

step_apply() {
  say "- answers"
  {
    say "# What deploy/install was told; it reads this the next time."
    for name in $QUESTIONS $UNASKED; do say "$name=$(value_of "$name")"; done
  } | put "$ANSWERS" 600
}
