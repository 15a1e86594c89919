"""What somebody is told who asks too often (RFC 9110 §10.2.3, draft-ietf-httpapi-ratelimit-headers)."""

import math

from cloudtolocalllm.api.failures import ProblemError
from cloudtolocalllm.api.state import Hit
from cloudtolocalllm.contracts.problems import Problem


def rate_limited(policy: str, hit: Hit, window: float, detail: str) -> ProblemError:
    """Return the problem to raise.

    Args:
        policy: The limit's name, as in the reference.
        hit: What the rate counter said.
        window: Its window in seconds.
        detail: One sentence for people.
    """
    wait = max(1, math.ceil(hit.retry_after))
    return ProblemError(
        Problem.RATE_LIMITED,
        detail,
        headers={
            "retry-after": str(wait),
            "ratelimit-policy": f'"{policy}";q={hit.limit};w={int(window)}',
            "ratelimit": f'"{policy}";r={hit.remaining};t={wait}',
        },
    )
