/** The events of a streamed OpenAI chat completion (`POST /v1/chat/completions`, `stream: true`), as values. Pure. */
import { fields, numberOr, textOr } from "@/net/decode";
import { engineProblem, type Problem } from "@/net/problem";
import { SseParser } from "@/net/sse";

export type CompletionEvent =
  | { readonly kind: "text"; readonly text: string }
  /** What a reasoning model thinks before it answers. */
  | { readonly kind: "thought"; readonly text: string }
  | { readonly kind: "usage"; readonly completionTokens: number }
  /** Why the model stopped; `length` means that a limit cut its answer. */
  | { readonly kind: "finish"; readonly reason: string }
  | { readonly kind: "error"; readonly problem: Problem }
  | { readonly kind: "done" };

export class CompletionParser {
  readonly #events = new SseParser();

  push(bytes: Uint8Array): CompletionEvent[] {
    return this.#events.push(bytes).flatMap((event) => decodeData(event.data));
  }
}

function decodeData(data: string): CompletionEvent[] {
  if (data.trim() === "[DONE]") return [{ kind: "done" }];
  let chunk: ReturnType<typeof fields>;
  try {
    chunk = fields(JSON.parse(data) as unknown);
  } catch {
    const detail = "A part of the answer was not JSON.";
    return [
      { kind: "error", problem: { slug: null, title: "The answer was not understood", detail, status: 200 } },
    ];
  }
  const problem = engineProblem(chunk["error"], 200);
  if (problem !== null) return [{ kind: "error", problem }];
  return [...decodeChoice(chunk["choices"]), ...decodeUsage(chunk["usage"])];
}

function decodeChoice(choices: unknown): CompletionEvent[] {
  const choice: unknown = Array.isArray(choices) ? choices[0] : undefined;
  if (typeof choice !== "object" || choice === null) return [];
  const { delta, finish_reason: finish } = choice as { delta?: unknown; finish_reason?: unknown };
  const events: CompletionEvent[] = [];
  if (typeof delta === "object" && delta !== null) {
    const parts = delta as { content?: unknown; reasoning?: unknown; reasoning_content?: unknown };
    // Ollama says `reasoning`, llama.cpp and others `reasoning_content`.
    const thought = textOr(parts.reasoning_content, textOr(parts.reasoning, ""));
    if (thought !== "") events.push({ kind: "thought", text: thought });
    const text = textOr(parts.content, "");
    if (text !== "") events.push({ kind: "text", text });
  }
  if (typeof finish === "string") events.push({ kind: "finish", reason: finish });
  return events;
}

function decodeUsage(usage: unknown): CompletionEvent[] {
  if (typeof usage !== "object" || usage === null || !("completion_tokens" in usage)) return [];
  const completionTokens = numberOr(usage.completion_tokens, null);
  return completionTokens === null ? [] : [{ kind: "usage", completionTokens }];
}
