"""What the demo engine says. Pure: the same prompt gives the same tokens."""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from cloudtolocalllm.demo.request import Generate, Tool

EMBEDDING_SIZE = 64
MAX_ECHO = 280
"""Characters of the prompt that are echoed."""
_LONGEST_TOKEN = 7
_PIECES = re.compile(rf"\s*\S{{1,{_LONGEST_TOKEN}}}|\s+")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the engine asks its client to make."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Script:
    """A whole answer."""

    thinking: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    tokens: tuple[str, ...]


def write(request: Generate) -> Script:
    """Return the answer to a request."""
    thinking: tuple[str, ...] = ()
    if request.think:
        thinking = split("The user wants to see how thinking is shown. I follow a script, so this is quickly done.")
    tool = _wanted_tool(request)
    if tool is not None:
        return Script(thinking, (_call(tool, request.prompt),), ())
    return Script(thinking, (), split(_text(request)))


def split(text: str) -> tuple[str, ...]:
    """Return the text in pieces about as long as a model's tokens; joined they are the text."""
    return tuple(_PIECES.findall(text))


def lengthened(tokens: tuple[str, ...], count: int) -> Iterator[str]:
    """Return `count` tokens, starting over as often as needed; all of them once for count 0."""
    return islice(cycle(tokens), count) if count and tokens else iter(tokens)


def count_tokens(text: str) -> int:
    """Return how many tokens a text is taken for."""
    return len(split(text))


def embedding(text: str) -> list[float]:
    """Return a vector of length 1 that depends on the text alone: enough to store and to compare for equality."""
    digest = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(EMBEDDING_SIZE)
    raw = [byte - 127.5 for byte in digest]
    norm = math.sqrt(sum(value * value for value in raw))
    return [value / norm for value in raw]


def _wanted_tool(request: Generate) -> Tool | None:
    said = request.prompt.lower()
    if request.after_tool or "use tool" not in said.replace("the ", "").replace("a ", ""):
        return None
    return next((tool for tool in request.tools if tool.name.lower() in said), None)


def _call(tool: Tool, prompt: str) -> ToolCall:
    example: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    arguments = {name: example.get(kind, "demo") for name, kind in tool.parameters}
    return ToolCall("call_" + hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:8], tool.name, arguments)


def _text(request: Generate) -> str:
    asked = " ".join(request.prompt.split())
    echo = asked if len(asked) <= MAX_ECHO else asked[:MAX_ECHO] + " …"
    seen = f" It came with {request.images} image{'s' if request.images > 1 else ''}." if request.images else ""
    if request.after_tool:
        seen = " The tool has answered, and its result arrived here."
    quoted = f"You wrote:\n\n> {echo}\n\n" if echo else ""
    return f"""\
# Hello from the demo

This is the **scripted demo engine**, not a language model: what you read was written beforehand and is sent word by \
word. {quoted}Your words made the whole way from this page to the engine and back, just as they would with a real \
model.{seen}

## Get real answers

1. Install [Ollama](https://ollama.com/download) on this machine.
2. Fetch a model:

   ```sh
   ollama pull llama3.2
   ```

3. Restart `cloudtolocalllm up`. It finds Ollama by itself, and this demo steps aside.

Any server that speaks OpenAI's API (llama.cpp, LM Studio, vLLM) does as well: `cloudtolocalllm up --engine URL`.

## What you see working

| part | what it does |
|---|---|
| streaming | each word appears when the engine sends it |
| *Stop* | ends the answer at the engine, at once |
| Markdown | headings, lists, tables and code are shown as such |

```python
from openai import OpenAI

for chunk in OpenAI().chat.completions.create(
    model="demo", messages=[{{"role": "user", "content": "Hello"}}], stream=True
):
    print(chunk.choices[0].delta.content or "", end="")
```

That is all this script knows. Have fun with a real model!
"""
