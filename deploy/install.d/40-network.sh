# shellcheck shell=sh disable=SC2154
# Ports 80 and 443 are free (or ours already), the names lead here, and nobody else has our addresses.

# Tells whether something listens on TCP port $1.
listens() {
  hex=$(printf '%04X' "$1")
  cat "$ROOT/proc/net/tcp" "$ROOT/proc/net/tcp6" 2>/dev/null | awk -v port=":$hex" '
    $4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }'
}

ours() { [ -n "$(docker ps -q --filter label=com.docker.compose.service=nginx-proxy 2>/dev/null)" ]; }

our_networks() { [ -n "$(docker network ls -q --filter label=com.docker.compose.project=cloudtolocalllm 2>/dev/null)" ]; }

step_check() {
  say "- network"
  for port in 80 443; do
    if listens "$port" && ! ours; then fault "port $port to be free: something else listens on it"; fi
  done
  while read -r destination; do
    case $destination in
      *14AC | *14ac) our_networks || fault "the addresses 172.20.0.0/16 to be unused: there is a route to them" ;;
    esac
  done <<ROUTES
$(awk 'NR > 1 { print $2 }' "$ROOT/proc/net/route" 2>/dev/null)
ROUTES
  if $skip_dns || [ "$cert_mode" != acme ] || [ -z "$domain" ]; then return; fi
  for name in "$domain" "app.$domain"; do
    found=$(getent ahosts "$name" 2>/dev/null | awk '{ print $1 }' | sort -u) || found=
    if [ -z "$found" ]; then
      fault "$name to lead to this machine: make an A (and AAAA) record for it, or use --skip-dns"
    elif ! own_addresses | grep -qxF "$found"; then
      warn "$name leads to $(say "$found" | tr '\n' ' ')- which is none of this machine's own; right only behind NAT"
    fi
  done
}

own_addresses() { hostname -I 2>/dev/null | tr ' ' '\n' | sed '/^$/d'; }

step_apply() { :; }
