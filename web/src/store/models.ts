/** The models that the engines at home offer, and which one is chosen. */
import { create } from "zustand";
import { getModels } from "@/net/api";
import { text } from "@/net/decode";
import { type Problem, ProblemError } from "@/net/problem";
import { load, save } from "@/store/storage";

const KEY = "c2l.model.v1";

interface ModelsState {
  /** `null` before they were first heard of. */
  readonly models: readonly string[] | null;
  readonly chosen: string | null;
  readonly loading: boolean;
  readonly problem: Problem | null;
}

export const useModels = create<ModelsState>(() => ({
  models: null,
  chosen: load(KEY, text),
  loading: false,
  problem: null,
}));

let latest = 0;

/** Asks for the list. Of several calls at once, the last one counts. */
export async function loadModels(): Promise<void> {
  latest += 1;
  const turn = latest;
  useModels.setState({ loading: true });
  try {
    const models = await getModels();
    if (turn !== latest) return;
    const { chosen } = useModels.getState();
    const kept = chosen !== null && models.includes(chosen) ? chosen : (models[0] ?? null);
    useModels.setState({ models, chosen: kept, loading: false, problem: null });
  } catch (error) {
    if (turn !== latest) return;
    if (!(error instanceof ProblemError)) throw error;
    useModels.setState({ loading: false, problem: error.problem });
  }
}

export function chooseModel(model: string): void {
  useModels.setState({ chosen: model });
  save(KEY, model);
}
