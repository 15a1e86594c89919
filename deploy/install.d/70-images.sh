# shellcheck shell=sh disable=SC2154
# The images, built from this tree; what is built already is not built again.

step_check() { :; }

step_apply() {
  $build || return 0
  say "- images"
  compose --profile build build
}
