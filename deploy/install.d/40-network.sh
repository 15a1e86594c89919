# shellcheck shell=sh disable=SC2154
# The ports are free (or ours already), the names lead here, and nobody else has our addresses.

# Tells whether something listens on TCP port $1.
listens() {
  hex=$(printf '%04X' "$1")
  cat "$ROOT/proc/net/tcp" "$ROOT/proc/net/tcp6" 2>/dev/null | awk -v port=":$hex" '
    $4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }'
}

# Tells whether this platform has published port $1.
is_ours() {
  [ -n "$(docker ps -q --filter "label=com.docker.compose.project=$project" --filter "publish=$1" 2>/dev/null)" ]
}

# The engine's networks that are this platform's, or its users', in the short form of their ids.
our_networks() {
  for label in "com.docker.compose.project=$project" org.cloudtolocalllm.managed-by; do
    docker network ls -q --filter "label=$label" 2>/dev/null || true
  done
}

# Ranges of addresses that others have, a line each: the first two bytes as a number, as many of the mask, whose it is.
# The engine is asked beside the kernel, for a bridge without an address has no route.
others_ranges() {
  awk 'NR > 1 && NF >= 8 { print $1, $2, $8 }' "$ROOT/proc/net/route" 2>/dev/null |
    while read -r interface destination mask; do
      case $ours in *" ${interface#br-} "*) continue ;; esac
      case $destination$mask in *[!0-9A-Fa-f]*) continue ;; esac
      # The kernel writes an address as one little-endian number: 172.20.0.0 is 000014AC.
      low=${destination#????} cover=${mask#????}
      say "$((0x${low#??}${low%??})) $((0x${cover#??}${cover%??})) the route by $interface"
    done
  for id in $(docker network ls -q 2>/dev/null); do
    case $ours in *" $id "*) continue ;; esac
    docker network inspect -f '{{$n := .Name}}{{range .IPAM.Config}}{{.Subnet}} {{$n}}{{println}}{{end}}' "$id" 2>/dev/null
  done | while read -r range name; do
    bits=${range#*/} first=${range%%.*} rest=${range#*.}
    case $range in [0-9]*.[0-9]*.*/[0-9]*) ;; *) continue ;; esac
    [ "$bits" -le 16 ] || bits=16
    say "$((first * 256 + ${rest%%.*})) $(((65535 << (16 - bits)) & 65535)) Docker's network $name"
  done
}

# Prints who has addresses of the /16 that begins with $1; nothing when it is free.
holder() {
  number=$((${1%.*} * 256 + ${1#*.}))
  say "$ranges" | while read -r first mask whose; do
    [ "${mask:-0}" -gt 0 ] || continue   # the default route
    if [ $((number & mask)) -eq $((first & mask)) ]; then say "$whose"; break; fi
  done
}

check_addresses() {
  case $subnet in *[!0-9.]* | *.*.* | .* | *. | '') return ;; *.*) ;; *) return ;; esac   # told already
  before=$(installed C2L_SUBNET)
  if [ -n "$before" ] && [ "$before" != "$subnet" ] && [ -n "$(our_networks)" ]; then
    fault "--subnet to stay $before while the platform has its networks: docker compose down, then again"
    return
  fi
  ours=" $(our_networks | tr '\n' ' ')"
  ranges=$(others_ranges)
  whose=$(holder "$subnet")
  [ -n "$whose" ] || return 0
  for other in 172.31 172.30 172.29 172.28 10.99 10.77; do
    [ -n "$(holder "$other")" ] || { free=" $other"; break; }
  done
  fault "the addresses $subnet.0.0/16 to be unused; $whose has some of them. Choose others: --subnet${free:- A.B}"
}

check_names() {
  if [ "$skip_dns" = true ] || [ "$cert_mode" != acme ] || [ -z "$domain" ]; then return; fi
  [ "${http##*:}" = 80 ] || warn "the certificate's authority comes by port 80: what has it must pass that on to $http"
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

step_check() {
  say "- network"
  for port in "${http##*:}" "${https##*:}"; do
    case $port in '' | *[!0-9]* | ??????*) continue ;; esac   # told already
    if listens "$port" && ! is_ours "$port"; then
      fault "port $port to be free: something else listens on it. Others by --http and --https"
    fi
  done
  check_addresses
  check_names
}

step_apply() { :; }
