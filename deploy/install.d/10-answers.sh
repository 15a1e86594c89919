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
    '') fault "an OpenID provider, by which people sign in: --issuer" ;;
    *[!A-Za-z0-9.:/_~-]*) fault "an issuer without query or blanks" ;;
    https://?*) ;;
    *) fault "an issuer that begins with https://" ;;
  esac
  case $client_id in '' | *[!A-Za-z0-9._~-]*) fault "the client id that the provider gave: --client-id" ;; esac
  case $provider_name in *[!A-Za-z0-9\ ._-]*) fault "a provider's name of letters, digits, blanks, dots and dashes" ;; esac
  case $cert_mode in acme | own | local-ca) ;; *) fault "--cert-mode acme, own or local-ca" ;; esac
  case $staging in true | false) ;; *) fault "staging to be true or false" ;; esac
  case $isolation in socket | network) ;; *) fault "--isolation socket or network" ;; esac
  case $replicas in [1-9] | [1-5][0-9]) ;; *) fault "--replicas 1 to 59" ;; esac
  if [ "$secret_file" != - ] && [ -n "$secret_file" ] && [ ! -s "$secret_file" ]; then
    fault "the client's secret in the file $secret_file"
  fi
  if [ -z "$secret_file" ] && [ ! -s "$COMPOSE_DIR/secrets/oidc-client-secret" ]; then
    fault "the client's secret that the provider gave: --client-secret-file"
  fi
  if [ "$cert_mode" = own ]; then
    for file in fullchain.pem privkey.pem; do
      [ -s "$COMPOSE_DIR/own/$file" ] || fault "your certificate in $COMPOSE_DIR/own/$file"
    done
  fi
}

step_apply() {
  say "- answers"
  {
    say "# What deploy/install was told; it reads this the next time."
    for name in $QUESTIONS; do say "$name=$(value_of "$name")"; done
    say "staging=$staging"
    say "skip_dns=$skip_dns"
  } | put "$ANSWERS" 600
}
