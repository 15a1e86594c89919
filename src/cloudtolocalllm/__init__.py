"""CloudToLocalLLM: language models at home, used from anywhere, streamed through a tunnel that home dials."""

__version__ = "0.1.0"
