"""`python -m cloudtolocalllm.demo`: the demo engine alone, set by C2L_DEMO_… in the environment."""

import asyncio
import sys

from cloudtolocalllm.demo.service import serve
from cloudtolocalllm.demo.settings import PREFIX, DemoSettings
from cloudtolocalllm.runtime import lifecycle, logs
from cloudtolocalllm.runtime.settings import SettingsError, environment, load


def main() -> int:
    """Serve until a signal comes or the leash is let go."""
    logs.configure("demo")
    try:
        settings = load(DemoSettings, PREFIX, environment())
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2

    async def run(stop: asyncio.Event) -> None:
        await serve(settings, stop)

    lifecycle.run(run, leash=settings.leash_fd if settings.leash_fd >= 0 else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
