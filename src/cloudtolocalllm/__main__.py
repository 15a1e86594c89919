"""``python -m cloudtolocalllm``: the command line."""

from cloudtolocalllm.cli import main

raise SystemExit(main())
