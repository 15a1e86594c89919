import type { Token } from "marked";
import { describe, expect, it } from "vitest";
import { BlockLexer, marked } from "@/render/blocks";

const SAMPLE = `# Title

A paragraph with *emphasis*, \`code\` and [a link](https://example.org).
It has two lines.

1. one

2. two

   continued

10. ten
- other list
  - nested

    \`\`\`py
    print("in a list")
    \`\`\`

> a quote
> goes on

| a | b |
|---|--:|
| 1 | 2 |

Setext
======

\`\`\`python
def f(x):

    return x
\`\`\`

~~~
tilde
~~~

<details>
<summary>More</summary>

inside

</details>

- [ ] open
- [x] done

***

The end, with a number:

1. last

2`;

/** What matters of a token: everything but the list items' place within the lexed part. */
function shape(tokens: readonly Token[]): unknown {
  return JSON.parse(JSON.stringify(tokens));
}

function feed(pieces: readonly string[]): { tokens: Token[]; mostTail: number } {
  const lexer = new BlockLexer();
  const settled: Token[] = [];
  let tail: readonly Token[] = [];
  let mostTail = 0;
  for (const piece of pieces) {
    const blocks = lexer.push(piece);
    settled.push(...blocks.settled);
    tail = blocks.tail;
    mostTail = Math.max(mostTail, tail.length);
  }
  return { tokens: [...settled, ...tail], mostTail };
}

describe("BlockLexer", () => {
  const whole = shape(marked.lexer(SAMPLE));

  it.each([1, 2, 3, 4, 5, 7, 11, 16, 64, 1000])(
    "gives what the whole text gives, in pieces of %i",
    (size) => {
      const pieces = SAMPLE.match(new RegExp(`[\\s\\S]{1,${size}}`, "g")) ?? [];
      expect(shape(feed(pieces).tokens)).toEqual(whole);
    },
  );

  it.each(Array.from(SAMPLE, (_, at) => at))("gives what the whole text gives, cut at %i", (at) => {
    expect(shape(feed([SAMPLE.slice(0, at), SAMPLE.slice(at)]).tokens)).toEqual(whole);
  });

  it("takes lines that end in CRLF", () => {
    expect(shape(feed(SAMPLE.replaceAll("\n", "\r\n").match(/[\s\S]{1,3}/g) ?? []).tokens)).toEqual(whole);
  });

  it("keeps only a few blocks unsettled", () => {
    const text = Array.from({ length: 200 }, (_, index) => `paragraph ${index}`).join("\n\n");
    expect(feed(Array.from(text)).mostTail).toBeLessThanOrEqual(4);
  });

  it("resolves references to links defined in a settled part", () => {
    const pieces = ["[a]: https://example.org/a\n\n", "one\n\n", "two\n\n", "three\n\n", "see [a]"];
    const last = feed(pieces).tokens.at(-1);
    expect(JSON.stringify(last)).toContain("https://example.org/a");
  });

  it("takes a definition only once it is whole", () => {
    const last = feed(Array.from("[a]: https://example.org/a\n\none\n\ntwo\n\nsee [a]")).tokens.at(-1);
    expect(JSON.stringify(last)).toContain("https://example.org/a");
  });
});
