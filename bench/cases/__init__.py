"""The cases by name, in the order in which they run."""

from bench.case import Case
from bench.cases import (
    added_latency,
    authorize,
    container_start,
    cpu_per_token,
    first_answer,
    first_token,
    memory_per_user,
    requests_per_second,
    sealed,
    sealed_size,
    stalled_reader,
    stop_latency,
    ten_thousand_bridges,
    thousand_users,
    tunnel_cut,
)

CASES: dict[str, Case] = {
    "added_latency": added_latency.run,
    "first_token": first_token.run,
    "requests_per_second": requests_per_second.run,
    "cpu_per_token": cpu_per_token.run,
    "sealed": sealed.run,
    "sealed_size": sealed_size.run,
    "memory_per_user": memory_per_user.run,
    "authorize": authorize.run,
    "ten_thousand_bridges": ten_thousand_bridges.run,
    "first_answer": first_answer.run,
    "container_start": container_start.run,
    "stalled_reader": stalled_reader.run,
    "stop_latency": stop_latency.run,
    "tunnel_cut": tunnel_cut.run,
}
ON_REQUEST: dict[str, Case] = {"thousand_users": thousand_users.run}
"""Too long for every run."""
