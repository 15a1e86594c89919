/**
 * The one conversation that earlier versions of this page kept in the browser: it is given to the home, where all the
 * others are.
 */
import { fields, list, oneOf, text, textOr } from "@/net/decode";
import { importConversation } from "@/net/home/api";
import type { HomeTransport } from "@/net/home/transport";
import { ProblemError } from "@/net/problem";
import { titleFor } from "@/store/conversation";
import { FORMER_KEY } from "@/store/former-key";
import { load, remove } from "@/store/storage";

interface FormerMessage {
  readonly id: string;
  readonly role: "user" | "assistant";
  readonly text: string;
  readonly thought: string;
  readonly model: string;
}

interface Former {
  readonly user: string | null;
  readonly messages: readonly FormerMessage[];
}

/** @throws DecodeError - it is none. */
export function decodeFormer(value: unknown): Former {
  const document = fields(value);
  return { user: textOr(document["user"], null), messages: list(document["messages"]).map(decodeMessage) };
}

function decodeMessage(value: unknown): FormerMessage {
  const document = fields(value);
  return {
    id: text(document["id"]),
    role: oneOf(document["role"], ["user", "assistant"]),
    text: text(document["text"]),
    thought: textOr(document["thought"], ""),
    model: textOr(document["model"], ""),
  };
}

/** As the home imports it; the same each time, so that it is there once. Pure. */
export function documentOf({ messages }: Former, now: number): unknown {
  const ids = messages.map(({ id }, index) => `former-${index}-${id}`.slice(0, 64).padEnd(16, "0"));
  return {
    format: "cloudtolocalllm-conversation",
    version: 1,
    id: `former-${messages[0]?.id ?? ""}`.slice(0, 64).padEnd(16, "0"),
    title: titleFor(messages[0]?.text ?? "", []),
    pinned: false,
    created: now,
    updated: now,
    leaf: ids.at(-1) ?? null,
    messages: messages.map(({ role, text: content, thought: thinking, model }, index) => ({
      id: ids[index],
      parent: ids[index - 1] ?? null,
      role,
      content,
      thinking,
      tool_calls: [],
      model,
      created: now,
      attachments: [],
    })),
    runs: [],
    attachments: {},
  };
}

/** Gives it to a home; another user's is removed. Without contact it stays for the next time. */
export async function takeOver(user: string | null, home: HomeTransport): Promise<void> {
  const former = load(FORMER_KEY, decodeFormer);
  if (former === null) return;
  if (former.user === user && former.messages.length > 0) {
    const document = JSON.stringify(documentOf(former, Math.floor(Date.now() / 1000)));
    try {
      await importConversation(home, new TextEncoder().encode(document));
    } catch (error) {
      if (error instanceof ProblemError) return;
      throw error;
    }
  }
  remove(FORMER_KEY);
}
