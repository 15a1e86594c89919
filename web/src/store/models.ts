/** The models of all homes as one list, which one is chosen, and pulls. What a home said last is kept. */
import { create } from "zustand";
import { fields, text } from "@/net/decode";
import { listModels, type Model, type Models, type Progress, readModels } from "@/net/home/api";
import { orNull } from "@/net/home/shapes";
import { type Problem, ProblemError } from "@/net/problem";
import { useHomes } from "@/store/homes";
import { load, remove, save } from "@/store/storage";

const CHOSEN_KEY = "c2l.model.v2";
const LISTS_KEY = "c2l.models.v1";

export interface HomeModels {
  readonly models: readonly Model[];
  readonly pulls: readonly Progress[];
  /** Whether the home said so while this page was open. */
  readonly heard: boolean;
  readonly loading: boolean;
  readonly problem: Problem | null;
}

export interface Chosen {
  readonly model: string;
  /** `null`: whichever home has it. */
  readonly bridgeId: string | null;
}

interface ModelsState {
  /** By bridge id. */
  readonly homes: ReadonlyMap<string, HomeModels>;
  readonly chosen: Chosen | null;
}

const UNHEARD: HomeModels = { models: [], pulls: [], heard: false, loading: false, problem: null };

export const useModels = create<ModelsState>(() => ({
  homes: new Map(),
  chosen: load(CHOSEN_KEY, decodeChosen),
}));

function decodeChosen(value: unknown): Chosen {
  const document = fields(value);
  return { model: text(document["model"]), bridgeId: orNull(text)(document["bridgeId"]) };
}

/** @throws DecodeError - it is none. */
export function decodeLists(value: unknown, user: string): ReadonlyMap<string, Models> {
  const document = fields(value);
  if (text(document["user"]) !== user) return new Map();
  const lists = Object.entries(fields(document["homes"]));
  return new Map(lists.map(([id, models]) => [id, readModels(models)]));
}

/** Shows what this browser keeps of a user's homes. */
export function openModels(user: string): void {
  const kept = load(LISTS_KEY, (value) => decodeLists(value, user)) ?? new Map<string, Models>();
  const homes = new Map([...kept].map(([id, { models }]) => [id, { ...UNHEARD, models }]));
  useModels.setState({ homes });
}

/** Removes what this browser keeps of models. */
export function forgetModels(): void {
  remove(LISTS_KEY);
  remove(CHOSEN_KEY);
  useModels.setState({ homes: new Map(), chosen: null });
}

function change(bridgeId: string, change: Partial<HomeModels>): void {
  useModels.setState(({ homes }) => ({
    homes: new Map(homes).set(bridgeId, { ...(homes.get(bridgeId) ?? UNHEARD), ...change }),
  }));
}

/** Of several calls at once, the last one counts. */
const turns = new Map<string, number>();

/** Asks a home for its list. */
export async function loadModels(user: string, bridgeId: string): Promise<void> {
  const home = useHomes.getState().homes.find((candidate) => candidate.bridgeId === bridgeId);
  if (home === undefined) return;
  const turn = (turns.get(bridgeId) ?? 0) + 1;
  turns.set(bridgeId, turn);
  change(bridgeId, { loading: true });
  try {
    const { models, pulls } = await listModels(home.transport);
    if (turns.get(bridgeId) !== turn) return;
    change(bridgeId, { models, pulls, heard: true, loading: false, problem: null });
    keep(user);
  } catch (error) {
    if (turns.get(bridgeId) !== turn) return;
    if (!(error instanceof ProblemError)) throw error;
    change(bridgeId, { loading: false, problem: error.problem });
  }
}

function keep(user: string): void {
  const homes = [...useModels.getState().homes].map(([id, { models }]) => [id, { models, pulls: [] }]);
  save(LISTS_KEY, { user, homes: Object.fromEntries(homes) });
}

export function noteProgress(bridgeId: string, progress: Progress): void {
  const pulls = useModels.getState().homes.get(bridgeId)?.pulls ?? [];
  change(bridgeId, { pulls: [...pulls.filter(({ model }) => model !== progress.model), progress] });
}

export function chooseModel(chosen: Chosen): void {
  useModels.setState({ chosen });
  save(CHOSEN_KEY, chosen);
}

/** A model, and the homes that have it. */
export interface Offer {
  readonly model: string;
  /** Those that answer first. */
  readonly homes: readonly { readonly bridgeId: string; readonly online: boolean }[];
  readonly cloud: boolean;
}

/** One list over all homes; first what can be had now. Pure. */
export function offersOf(
  homes: readonly { readonly bridgeId: string; readonly online: boolean }[],
  lists: ReadonlyMap<string, HomeModels>,
): readonly Offer[] {
  const offers = new Map<string, Offer>();
  const inOrder = [...homes.filter(({ online }) => online), ...homes.filter(({ online }) => !online)];
  for (const home of inOrder) {
    for (const { name, cloud } of lists.get(home.bridgeId)?.models ?? []) {
      const known = offers.get(name);
      if (known?.homes.some(({ bridgeId }) => bridgeId === home.bridgeId)) continue;
      offers.set(name, { model: name, homes: [...(known?.homes ?? []), home], cloud: known?.cloud ?? cloud });
    }
  }
  return [...offers.values()];
}

/**
 * What would answer now; `null` if nothing can. A machine that was chosen for new conversations and is away leaves them to
 * another that is online. Pure.
 *
 * @param within - the home that a conversation is at, which has to answer in it.
 * @param last - the model that answered there last.
 */
export function choiceOf(
  offers: readonly Offer[],
  chosen: Chosen | null,
  within: string | null,
  last: string | null,
): { readonly bridgeId: string; readonly model: string } | null {
  const fitting = offers.filter(
    ({ homes }) => within === null || homes.some((home) => home.bridgeId === within),
  );
  const named = (name: string | null | undefined) => fitting.find(({ model }) => model === name);
  const offer = named(chosen?.model) ?? named(last) ?? fitting[0];
  if (offer === undefined) return null;
  const { model, homes } = offer;
  const [first] = homes;
  const wanted = homes.find(({ bridgeId }) => bridgeId === (within ?? chosen?.bridgeId));
  const away = within === null && wanted?.online === false && first?.online === true;
  const bridgeId = (away ? first : (wanted ?? first))?.bridgeId;
  return bridgeId === undefined ? null : { bridgeId, model };
}
