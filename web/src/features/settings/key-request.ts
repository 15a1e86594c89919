/** From what was typed to a request for a key, or to what is wrong with it. Pure. */
import type { NewKeyRequest } from "@/net/keys";

export const LIFETIMES_DAYS = [7, 30, 90, 365] as const;
export const ROUTES = [
  { prefix: "/v1/", name: "OpenAI-compatible" },
  { prefix: "/ollama/", name: "Ollama" },
  { prefix: "/anthropic/", name: "Anthropic-compatible" },
  { prefix: "/e2e/", name: "Sealed, by connect" },
] as const;

/** As the server has them. */
const MOST_NAME = 100;
const MOST_MODELS = 16;
const MOST_MODELS_TEXT = 1_024;
const MODEL = /^[A-Za-z0-9._:/@+*?-]{1,128}$/;

/** What stands in the form. */
export interface KeyForm {
  readonly name: string;
  readonly days: number;
  readonly routes: readonly string[];
  /** Patterns, apart by spaces, commas or lines. */
  readonly models: string;
  readonly requestsPerMinute: string;
  readonly tokensPerDay: string;
  /** A machine's id; "" for any. */
  readonly bridge: string;
}

export const EMPTY_FORM: KeyForm = {
  name: "",
  days: 90,
  routes: ROUTES.map(({ prefix }) => prefix),
  models: "",
  requestsPerMinute: "",
  tokensPerDay: "",
  bridge: "",
};

export type Faults = Partial<Record<keyof KeyForm, string>>;

/** Returns the request, or every fault at once. */
export function keyRequest(form: KeyForm): { request: NewKeyRequest } | { faults: Faults } {
  const name = form.name.trim();
  const models = form.models.split(/[\s,]+/).filter((pattern) => pattern !== "");
  const requestsPerMinute = wholeNumber(form.requestsPerMinute);
  const tokensPerDay = wholeNumber(form.tokensPerDay);
  const faults: Faults = {
    ...((name === "" || name.length > MOST_NAME) && {
      name: `Give it a name of 1 to ${MOST_NAME} characters.`,
    }),
    ...(form.routes.length === 0 && { routes: "Choose at least one." }),
    ...faultOfModels(models),
    ...(requestsPerMinute === undefined && { requestsPerMinute: WHOLE_NUMBER }),
    ...(tokensPerDay === undefined && { tokensPerDay: WHOLE_NUMBER }),
  };
  if (Object.keys(faults).length > 0 || requestsPerMinute === undefined || tokensPerDay === undefined)
    return { faults };
  const routes = form.routes.length === ROUTES.length ? [] : form.routes;
  const bridge = form.bridge === "" ? null : form.bridge;
  return { request: { name, days: form.days, routes, models, requestsPerMinute, tokensPerDay, bridge } };
}

const WHOLE_NUMBER = "Write a whole number above 0, or nothing for no limit.";

/** `null` for no limit, `undefined` for what is no number. */
function wholeNumber(typed: string): number | null | undefined {
  const digits = typed.trim();
  if (digits === "") return null;
  return /^[0-9]{1,12}$/.test(digits) && Number(digits) > 0 ? Number(digits) : undefined;
}

function faultOfModels(models: readonly string[]): Faults {
  if (!models.every((pattern) => MODEL.test(pattern)))
    return { models: "Write names such as llama3.2:3b, or patterns such as qwen* with * and ?." };
  const characters = models.reduce((sum, pattern) => sum + pattern.length, 0);
  if (models.length <= MOST_MODELS && characters <= MOST_MODELS_TEXT) return {};
  return { models: `At most ${MOST_MODELS} names or patterns, with ${MOST_MODELS_TEXT} characters in all.` };
}
